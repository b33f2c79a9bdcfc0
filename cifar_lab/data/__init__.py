"""Data sets, augmentation and batches of images."""
