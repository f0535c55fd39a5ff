"""`lethe forensics`: looks for what must not be left."""

import asyncio
import sys
from pathlib import Path

import click
from rich.console import Console

from broker.commands.endings import EXISTING, OUTPUT, run, say
from broker.forensics.faults import FAULTS, QUICK
from broker.forensics.findings import EXIT_CODES
from broker.forensics.inspection import Say
from broker.forensics.report import show, write
from broker.forensics.story import Plan, Signed, investigate
from broker.supervisor import stop_on_signals
from broker.up import Stopped, unless_stopped


@click.command("forensics")
@click.option("--quick", is_flag=True, help=f"Only what takes seconds: {', '.join(QUICK)}.")
@click.option("--fault", "faults", type=click.Choice(list(FAULTS)), multiple=True, help="Only this; may be repeated.")
@click.option("--jobs", type=click.IntRange(1, 100), default=1, show_default=True, help="How many jobs for each fault.")
@click.option("--profile", default="minimal", show_default=True, help="Which shipped profile.")
@click.option(
    "--output", type=OUTPUT, default=Path("privacy-report.json"), show_default=True, help="Where the report goes."
)
@click.option(
    "--key",
    type=EXISTING,
    envvar="LETHE_RECEIPT_KEY_FILE",
    help="Sign with this key; else with one that is made for this run.  [env: LETHE_RECEIPT_KEY_FILE]",
)
def forensics_command(  # noqa: PLR0917 -- click names them
    quick: bool, faults: tuple[str, ...], jobs: int, profile: str, output: Path, key: Path | None
) -> None:
    """Plant markers in uploads, cause faults, and look for what is left: on disks, in memory, in logs, on the wire.

    Starts a whole stack of its own, and proves first that it finds a leak that it planted, on every surface in every
    encoding. Run it as root: only root may look into the memory of hardened processes and capture packets; what it
    cannot look at is printed as `not scanned`.

    The report is a C2SP signed note: any tool for such notes verifies it with the key that is printed last.

    The exit code is 0 for clean, 3 for partial (not everything was scanned), 4 for void (it proves nothing), 5 for a
    leak, and 1 when it could not run.

    \b
    Example:  sudo lethe forensics
              lethe forensics --quick --output report.json
              lethe forensics --fault worker --fault redis --jobs 5
    """
    names = faults or (QUICK if quick else tuple(FAULTS))
    plan = Plan(faults=tuple(FAULTS[name] for name in names), jobs=jobs, profile=profile, key_file=key)
    console = Console(highlight=False)
    try:
        with console.status("starting") as status:
            signed = run(_until_told(plan, status.update))
    except Stopped:
        raise click.ClickException("stopped before everything was looked at; nothing is left running") from None
    show(signed.report, console)
    write(signed.report, signed.signer, output)
    say(f"\nSigned as {output}, a C2SP signed note; it is verified with the key {signed.signer.vkey}")
    sys.exit(EXIT_CODES[signed.report.verdict])


async def _until_told(plan: Plan, watch: Say) -> Signed:
    stopping = stop_on_signals(asyncio.get_running_loop())
    return await unless_stopped(investigate(plan, watch=watch), stopping)
