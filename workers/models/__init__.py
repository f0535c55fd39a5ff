"""In-house models, one file each."""
