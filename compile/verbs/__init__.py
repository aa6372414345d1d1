"""The command line's verbs of the compiler: one file each."""
