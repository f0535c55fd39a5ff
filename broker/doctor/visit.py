"""One examination: this machine with its settings and stores, or a deployment from outside."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from broker.doctor.configuration import configuration, data, settings_of
from broker.doctor.deployment import deployment
from broker.doctor.findings import Finding, Level
from broker.doctor.machine import machine
from broker.doctor.notices import notices
from broker.doctor.providers import providers
from broker.doctor.stores import stores
from broker.settings import inherited_environment
from broker.up import data_directory

_MARKS: Final = {Level.OK: "✓", Level.NOTE: "·", Level.WARNING: "!", Level.PROBLEM: "✗"}
_STYLES: Final = {Level.OK: "green", Level.NOTE: "cyan", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


async def examine(*, url: str | None, token: str) -> list[Finding]:
    """Return everything that was found, in the order in which it is best mended."""
    if url is not None:
        return [finding async for finding in deployment(url, token=token)]
    environment = inherited_environment()
    settings, found = settings_of(environment)
    found = [*machine(), *found, *configuration(settings), *data(data_directory(environment))]
    if settings is not None:
        found += [finding async for finding in stores(settings)]
        found += [finding async for finding in providers(settings)]
        found += [finding async for finding in notices(settings)]
    return found


def show(findings: Sequence[Finding], console: Console) -> int:
    """Print every finding with its remedy; return how many are problems."""
    for finding in findings:
        mark = Text(_MARKS[finding.level], style=_STYLES[finding.level])
        console.print(mark + Text(f" {finding.what}", style=""), soft_wrap=True)
        if finding.mend:
            console.print(Text(f"    {finding.mend}", style="dim"), soft_wrap=True)
    return sum(finding.level is Level.PROBLEM for finding in findings)
