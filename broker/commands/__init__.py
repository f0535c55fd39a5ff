"""The commands of `lethe`, by what they are for; `broker/cli.py` puts them together."""
