"""Encryption of blobs."""
