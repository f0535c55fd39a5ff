"""Thin HTTP controllers."""
