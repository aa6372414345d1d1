"""The command line's verbs of gates and releases: one file each."""
