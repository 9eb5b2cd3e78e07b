"""Hostile and broken input for the command, and what each of it may end in. `python -m attacks` prints the table."""
