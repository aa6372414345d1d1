"""The command line's verbs of the vehicle: one file each."""
