"""Where fal's outputs lie, and whether one can still be read there; asked without the key, and guarded as downloads."""

from typing import Final

from providers.base import Output, Setup
from providers.download import EXPIRED, Downloader, DownloadRules
from providers.failures import FailureKind, ProviderFailure

_THERE: Final = frozenset({"output_too_large", "output_kind", "output_encoding"})
"""What a download says of an answer that came with 200: none of its bytes is taken."""


def watcher(setup: Setup, host: str) -> Downloader:
    """Make who looks: at `host` and the hosts below it, and at an emulator's own address."""
    return Downloader(
        DownloadRules(
            base_url=setup.base_url,
            hosts=(host, f"*.{host}") if "." in host else (host,),
            # The configuration takes it only for this machine, and for exposure = "local".
            is_local=setup.base_url.startswith("http://"),
            max_bytes=0,
            timeout_s=setup.timeout_s,
        )
    )


async def is_served(watching: Downloader, url: str) -> bool:
    """Whether a file can be read; raise where that was not seen, and where the URL leads to what must not be asked."""
    try:
        await watching.fetch(Output(url=url))
    except ProviderFailure as failure:
        if failure.kind is FailureKind.BAD_OUTPUT and failure.detail in _THERE:
            return True
        if failure.kind is FailureKind.BAD_OUTPUT and failure.detail == EXPIRED:
            return False
        raise
    return True
