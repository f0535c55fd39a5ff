"""All keyholders of a deployment: any that is well gets new keys, and each later frame goes to the one in the row."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Self

from broker.custody import KeptAt
from broker.errors import KeyholderUnavailable
from broker.settings import Settings, SettingsInvalid
from broker.store.keys import Keyholder
from broker.wire import TlsFiles, is_path


class Keyholders:
    """Finds the keyholder for a key; which ones there are is told at start, and every process is told the same."""

    def __init__(self, addresses: Sequence[str], files: TlsFiles | None = None) -> None:
        self._all = {address: Keyholder(address, files) for address in addresses}
        self._turns = count()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take those that the settings name; raise SettingsInvalid."""
        addresses = [word.strip() for word in settings.keyholder_socket.split(",") if word.strip()]
        names = (settings.keyholder_ca_file, settings.keyholder_certificate_file, settings.keyholder_key_file)
        if not addresses:
            raise SettingsInvalid("LETHE_KEYHOLDER_SOCKET names no keyholder")
        if not all(names) and not all(is_path(address) for address in addresses):
            raise SettingsInvalid(
                "a keyholder at host:port needs LETHE_KEYHOLDER_CA_FILE, LETHE_KEYHOLDER_CERTIFICATE_FILE and "
                "LETHE_KEYHOLDER_KEY_FILE"
            )
        return cls(addresses, TlsFiles(*names) if all(names) else None)

    def __iter__(self) -> Iterator[Keyholder]:
        return iter(self._all.values())

    def at(self, address: str) -> Keyholder:
        """Return the keyholder that a row names; raise KeyholderUnavailable where the settings do not."""
        try:
            return self._all[address]
        except KeyError:
            raise KeyholderUnavailable("LETHE_KEYHOLDER_SOCKET does not name the keyholder that has this key") from None

    async def pick(self) -> KeptAt:
        """Choose, in turns, a keyholder for a new key: one that is well, not full, and not being drained."""
        ready = [keyholder for keyholder in self if keyholder.takes_keys]
        if not ready:
            ready = [keyholder for keyholder in self if await _is_ready(keyholder)]
        if not ready:
            raise KeyholderUnavailable("no keyholder takes keys")
        chosen = ready[next(self._turns) % len(ready)]
        return KeptAt(keyholder=chosen.address, incarnation=await chosen.incarnation())

    async def hello(self) -> None:
        """Ask all; raise KeyholderUnavailable unless one of them answers and takes keys."""
        if not any(await asyncio.gather(*(_is_ready(keyholder) for keyholder in self))):
            raise KeyholderUnavailable("no keyholder takes keys")

    async def aclose(self) -> None:
        """Close every connection."""
        for keyholder in self:
            await keyholder.aclose()


async def _is_ready(keyholder: Keyholder) -> bool:
    try:
        await keyholder.hello()
    except KeyholderUnavailable:
        return False
    return keyholder.takes_keys
