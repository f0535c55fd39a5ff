"""Rows, keys and blobs: everything that outlives a request."""
