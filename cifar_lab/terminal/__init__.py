"""A command on a terminal: its arguments, its tables, its lines."""
