"""Takes work in and keeps the truth about it."""
