"""The claims of the report's text, each with the numbers that decide it."""
