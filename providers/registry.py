"""Every adapter by the name that lethe.toml gives it; their terms can be read without making one."""

from providers.base import Provider

ADAPTERS: dict[str, type[Provider]] = {}
