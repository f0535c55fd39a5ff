"""Serves an emulator from the command line until it is told to stop: `python -m tests.emulators.NAME --port N`."""

import argparse
import signal
import sys

import msgspec

from tests.emulators.base import Answer, Emulator, Seen, running

RECORD = "GET /-/seen"
"""No part of any provider's API: who started the emulator asks here for every request that it has had."""


def serve(emulator: Emulator, arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C; its address is the only line on stdout."""

    async def tell(seen: Seen) -> Answer:
        requests = [one for one in emulator.seen if one.route != seen.route]
        return Answer(body=msgspec.json.encode(requests), headers={"content-type": "application/json"})

    emulator.routes = {RECORD: ("record", tell), **emulator.routes}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    with running(emulator, port=arguments.port) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def arguments(title: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--port", type=int, default=0, help="0: any")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the model works")
    return parser.parse_args()
