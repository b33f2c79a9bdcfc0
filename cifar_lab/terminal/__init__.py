"""Commands on a terminal: arguments, tables and messages."""
