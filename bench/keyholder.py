"""Measure a keyholder over its socket: one caller at a time, and many at once; print the figures as JSON."""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec

from broker.errors import KeyholderUnavailable
from broker.frames import KEY_BYTES
from broker.secret_memory import harden, random_into
from broker.store.keys import Keyholder

TTL_S = 60
Step = Callable[[Keyholder, bytes, bytearray], Awaitable[object]]

STEPS: dict[str, Step] = {
    "put": lambda keys, key_id, key: keys.put(key_id, key, ttl_s=TTL_S),
    "open": lambda keys, key_id, key: keys.open_into(key_id, key, fence=1),
    "has": lambda keys, key_id, _: keys.has(key_id),
    "shred": lambda keys, key_id, _: keys.shred(key_id, ttl_s=TTL_S),
}


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    p50_ms: float
    p99_ms: float
    sequential_per_s: int
    pipelined_per_s: int


async def measure(keys: Keyholder, step: Step, pairs: list[tuple[bytes, bytearray]]) -> Figures:
    """Time the first half of the pairs one after the other, the second half all at once."""
    half = len(pairs) // 2
    times_s: list[float] = []
    for key_id, key in pairs[:half]:
        began_s = time.perf_counter()
        await step(keys, key_id, key)
        times_s.append(time.perf_counter() - began_s)
    began_s = time.perf_counter()
    await asyncio.gather(*(step(keys, key_id, key) for key_id, key in pairs[half:]))
    pipelined_s = time.perf_counter() - began_s
    return Figures(
        p50_ms=round(statistics.median(times_s) * 1000, 3),
        p99_ms=round(statistics.quantiles(times_s, n=100)[98] * 1000, 3),
        sequential_per_s=round(half / sum(times_s)),
        pipelined_per_s=round((len(pairs) - half) / pipelined_s),
    )


async def ready(keys: Keyholder) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await keys.hello()
                return
            except KeyholderUnavailable:
                await asyncio.sleep(0.01)


def new_pair() -> tuple[bytes, bytearray]:
    key = bytearray(KEY_BYTES)
    random_into(key)
    return os.urandom(16), key


async def measure_all(socket_path: str, operations: int) -> dict[str, object]:
    keys = Keyholder(socket_path)
    await ready(keys)
    pairs = [new_pair() for _ in range(operations)]
    figures = {name: await measure(keys, step, pairs) for name, step in STEPS.items()}
    stats = await keys.stats()
    await keys.aclose()
    return {"operations": operations, "memory": stats.memory, "verbs": figures}


@click.command()
@click.option("--operations", default=20_000, show_default=True, help="Of each verb; half one by one, half at once.")
def main(operations: int) -> None:
    harden()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        socket_path = str(Path(folder) / "k.sock")
        command = [sys.executable, "-m", "broker.keyholder", "--socket", socket_path]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as keyholder:
            try:
                report = asyncio.run(measure_all(socket_path, operations))
            finally:
                keyholder.terminate()
    print(msgspec.json.format(msgspec.json.encode(report)).decode())


if __name__ == "__main__":
    main()
