"""Serves an emulator from the command line until it is told to stop: `python -m tests.emulators.NAME --port N`."""

import argparse
import signal
import sys

from tests.emulators.base import Emulator, running


def serve(emulator: Emulator, arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C; its address is the only line on stdout."""
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
