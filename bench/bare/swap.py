"""Puts stand-ins into the product's modules once they are loaded; only a process that the bench starts calls this."""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Final

PRODUCT: Final = ("broker", "workers", "policies", "providers")


class NothingReplaced(Exception):
    """The product does not know this name any more: what would be measured is not what the page says."""


def put_in_place_of(original: object, stand_in: object, *, within: tuple[str, ...] = PRODUCT) -> None:
    """Replace a class or function under every name by which modules of the product know it; raise NothingReplaced."""
    count = 0
    for module in _loaded(within):
        for name, value in list(vars(module).items()):
            if value is original:
                setattr(module, name, stand_in)
                count += 1
    if not count:
        raise NothingReplaced(f"{original!r} in {', '.join(within)}")


def put_at(module: str, name: str, stand_in: object) -> None:
    """Replace what one module of the product has under a name; raise NothingReplaced."""
    if not hasattr(sys.modules[module], name):
        raise NothingReplaced(f"{module}.{name}")
    setattr(sys.modules[module], name, stand_in)


def _loaded(within: tuple[str, ...]) -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if any(name == package or name.startswith(f"{package}.") for package in within):
            yield module
