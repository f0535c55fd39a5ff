"""
`python -m bench.bare ROLE`: the composition root of a deployment without parts of the guarantee; the bench starts it.

It wires the product's own services with stand-ins. Nothing of the product imports it or can be told to do without.
"""

import asyncio
from collections.abc import Callable, Mapping, Set

import click

import broker.api.serving
import workers.images.line
from bench.bare.ciphers import (
    PlainDecryptor,
    PlainEncryptor,
    PlainRangeDecryptor,
    no_header,
    plain_bytes,
    plain_range,
)
from bench.bare.custody import NoSettler, queue_stores
from bench.bare.keys import NoKeyholder, leave_zeros
from bench.bare.memory import NoGuard, keep_buffer, keep_shared
from bench.bare.parts import Part
from bench.bare.pictures import Unfenced
from bench.bare.swap import put_at, put_in_place_of
from broker.app import serve
from broker.crypto import chunked
from broker.guard import Guard
from broker.log import configure_log, report_crashes
from broker.secret_memory import harden, random_into, wipe
from broker.settings import load_settings
from broker.settle import Settler
from broker.store.keys import Keyholder
from broker.store.stores import make_stores
from policies.registry import load_profile
from providers.memory import overwrite
from workers.images.zygote import Zygote
from workers.main import work

KEY_MAKERS = ("broker.deposit", "workers.outputs")


def without_encryption() -> None:
    """Store what comes as it comes."""
    put_in_place_of(chunked.Encryptor, PlainEncryptor)
    put_in_place_of(chunked.Decryptor, PlainDecryptor)
    put_in_place_of(chunked.RangeDecryptor, PlainRangeDecryptor)
    put_in_place_of(chunked.ciphertext_bytes, plain_bytes)
    put_in_place_of(chunked.ciphertext_range, plain_range)
    put_at(broker.api.serving.__name__, "_header", no_header)


def without_keyholder() -> None:
    """Ask nobody for a key."""
    put_in_place_of(Keyholder, NoKeyholder)
    put_in_place_of(random_into, leave_zeros, within=KEY_MAKERS)


def without_sandbox() -> None:
    """Decode and encode in this process."""
    put_in_place_of(Zygote, Unfenced)


def without_custody() -> None:
    """Keep no more rows than a plain queue does."""
    put_in_place_of(make_stores, queue_stores)
    put_in_place_of(Settler, NoSettler)


def without_forgetting() -> None:
    """Leave what was held where it was; the guard and the heap are the caller's business."""
    put_in_place_of(wipe, keep_buffer)
    put_in_place_of(overwrite, keep_shared)
    put_at(workers.images.line.__name__, "FORGETFUL_HEAP", {})


WITHOUT: Mapping[Part, Callable[[], None]] = {
    Part.ENCRYPTION: without_encryption,
    Part.KEYHOLDER: without_keyholder,
    Part.SANDBOX: without_sandbox,
    Part.CUSTODY: without_custody,
    Part.FORGETTING: without_forgetting,
}


@click.command()
@click.argument("role", type=click.Choice(["broker", "worker"]))
@click.argument("pool", default="")
@click.option("--without", "parts", multiple=True, type=click.Choice([part.value for part in Part]))
def main(role: str, pool: str, parts: tuple[str, ...]) -> None:
    """Run one broker, or one worker of POOL, without these parts of the guarantee, until SIGTERM."""
    guard = prepared(frozenset(Part(part) for part in parts))
    settings = load_settings()
    if role == "broker":
        asyncio.run(serve(settings, guard=guard))
    else:
        asyncio.run(work(settings, pool, guard=guard, profile=load_profile(settings.profile)))


def prepared(without: Set[Part]) -> Guard:
    """Make this process one without these parts, and return its guard, or what stands in for it."""
    is_guarded = Part.FORGETTING not in without
    if is_guarded:
        harden()
    configure_log()
    report_crashes()
    for part in without:
        WITHOUT[part]()
    return Guard.from_environment() if is_guarded else NoGuard()


if __name__ == "__main__":
    main()
