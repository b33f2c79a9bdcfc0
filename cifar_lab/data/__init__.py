"""Images from bytes to batches."""
