"""Decides, purely: no I/O, no clock, no SDK."""
