"""One process of Lethe with hooks at its crash points: `python -m tests.crash.process broker|keyholder|POOL`."""

import os
import sys
from pathlib import Path

from broker import __main__ as broker
from broker import keyholder
from tests.crash.hooks import install
from tests.crash.points import Hook
from workers import __main__ as workers

FOLDER_VARIABLE = "LETHE_CRASH_FOLDER"


def main(role: str) -> None:
    """Be that process."""
    install(Hook(Path(os.environ[FOLDER_VARIABLE]), role))
    if role == "broker":
        broker.main()
    elif role == "keyholder":
        keyholder.main(["--socket", os.environ["LETHE_KEYHOLDER_SOCKET"]])
    else:
        workers.main([role])


if __name__ == "__main__":
    main(sys.argv[1])
