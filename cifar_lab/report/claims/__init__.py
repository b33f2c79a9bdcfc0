"""What the report claims in words, each with the numbers that decide it."""
