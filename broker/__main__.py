"""`python -m broker`: one broker, guarded; `lethe broker` starts it."""

import asyncio

from broker.app import serve
from broker.guard import Guard
from broker.log import configure_log, report_crashes
from broker.secret_memory import harden
from broker.settings import load_settings
from broker.starting import in_words


def main() -> None:
    """Run one broker until SIGTERM."""
    harden()
    configure_log()
    report_crashes()
    with in_words():
        asyncio.run(serve(load_settings(), guard=Guard.from_environment()))


if __name__ == "__main__":
    main()
