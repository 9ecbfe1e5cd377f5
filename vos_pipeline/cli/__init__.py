"""The command line: the options of every command, and what each command does."""
