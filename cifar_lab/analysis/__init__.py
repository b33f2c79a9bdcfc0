"""Numbers and figures from what runs left: arrays in, arrays out. Nothing here trains."""
