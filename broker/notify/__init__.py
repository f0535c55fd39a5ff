"""Tells others that a job is final: webhooks, and push through Firebase or Apple."""
