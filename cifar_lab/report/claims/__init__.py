"""Claims of the report, each with the numbers that decide it."""
