"""The parts of the command line: its options, and what each subcommand does."""
