"""Speaks to models; knows nothing of jobs."""
