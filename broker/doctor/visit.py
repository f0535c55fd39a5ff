"""One examination: this machine with its settings and stores, or a deployment from outside."""

from broker.doctor.configuration import configuration, data, settings_of
from broker.doctor.deployment import deployment
from broker.doctor.findings import Finding
from broker.doctor.machine import machine
from broker.doctor.stores import stores
from broker.settings import inherited_environment
from broker.up import data_directory


async def examine(*, url: str | None, token: str) -> list[Finding]:
    """Return everything that was found, in the order in which it is best mended."""
    if url is not None:
        return [finding async for finding in deployment(url, token=token)]
    environment = inherited_environment()
    settings, found = settings_of(environment)
    found = [*machine(), *found, *configuration(settings), *data(data_directory(environment))]
    if settings is not None:
        found += [finding async for finding in stores(settings)]
    return found
