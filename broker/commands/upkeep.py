"""`lethe migrate | doctor`: what keeps a deployment well."""

import sys

import click
from rich.console import Console

from broker.commands.endings import run, say
from broker.doctor.visit import examine, show
from broker.migrate import migrate


@click.command("migrate")
@click.option("--dsn", envvar="LETHE_POSTGRES_DSN", required=True, help="Which database.  [env: LETHE_POSTGRES_DSN]")
def migrate_command(dsn: str) -> None:
    """Bring the database to the newest version; safe to run again, and while the previous release works.

    \b
    Example:  LETHE_POSTGRES_DSN=postgresql://lethe@db/lethe lethe migrate
    """
    say("Looking at the database …")
    applied = run(migrate(dsn))
    for number in applied:
        say(f"applied migration {number:04}")
    say(
        "The database is at its newest version." if applied else "Nothing to do: the database is at its newest version."
    )


@click.command("doctor")
@click.option("--url", help="Examine a deployment from outside, as a phone sees it.")
@click.option("--token", envvar="LETHE_TOKEN", default="", help="With --url: be this user; a new one if not given.")
def doctor_command(url: str | None, token: str) -> None:
    """Say what is wrong with this machine, its settings and its stores, and how to mend it.

    With --url it looks at a running deployment from outside instead, and finds a proxy that holds bodies back.
    The exit code is 1 when there is a problem.

    \b
    Example:  lethe doctor --url https://lethe.example.org
    """
    findings = run(examine(url=url, token=token))
    problems = show(findings, Console(highlight=False))
    say("No problem found." if not problems else f"{problems} to mend.")
    sys.exit(1 if problems else 0)
