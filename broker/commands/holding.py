"""`lethe hold | remove-child`: what operators do to users' records, each with a key of their own."""

from typing import TextIO
from uuid import UUID

import click

from broker.commands.endings import say
from broker.commands.operators import asked, operator_options


@click.group("hold")
def hold_group() -> None:
    """Legal holds: keep one user's records from deletion, never an upload, an output or a key.

    One operator proposes, another confirms within a day, with another key. The user sees it.

    \b
    Example:  lethe hold propose usr_… --reference court/2026-17 --key-file alice.key
    """


@hold_group.command("propose")
@click.argument("user_id")
@click.option("--reference", required=True, help="Your own, of a court's file for example; it names nobody.")
@operator_options
def propose_command(user_id: str, *, reference: str, operator_url: str, key_file: TextIO) -> None:
    """Propose a hold on a user's records; it keeps nothing yet.

    \b
    Example:  lethe hold propose usr_… --reference court/2026-17 --key-file alice.key
    """
    body = {"user_id": user_id, "reference": reference}
    hold = asked(operator_url, key_file, "POST", "/holds", body)
    say(f"Proposed: {hold['id']}\nBy {hold['confirm_by']} another operator says:  lethe hold confirm {hold['id']}")


@hold_group.command("confirm")
@click.argument("hold_id", type=UUID)
@operator_options
def confirm_command(hold_id: UUID, *, operator_url: str, key_file: TextIO) -> None:
    """Put a hold in force that another operator proposed.

    \b
    Example:  lethe hold confirm 6f9c1b1e-… --key-file bob.key
    """
    hold = asked(operator_url, key_file, "POST", f"/holds/{hold_id}/confirm")
    say(f"In force since {hold['confirmed_at']}: records of {hold['user_id']} stay until `lethe hold end {hold_id}`.")


@hold_group.command("end")
@click.argument("hold_id", type=UUID)
@operator_options
def end_command(hold_id: UUID, *, operator_url: str, key_file: TextIO) -> None:
    """End a hold: what it kept goes at its time again.

    \b
    Example:  lethe hold end 6f9c1b1e-… --key-file bob.key
    """
    hold = asked(operator_url, key_file, "DELETE", f"/holds/{hold_id}")
    say(f"Ended at {hold['ended_at']}.")


@hold_group.command("list")
@operator_options
def list_command(*, operator_url: str, key_file: TextIO) -> None:
    """List every hold, newest first.

    \b
    Example:  lethe hold list --key-file bob.key
    """
    holds = asked(operator_url, key_file, "GET", "/holds")["items"]
    for hold in holds:
        say(f"{hold['id']}  {hold['state']:9}  {hold['user_id']}  {hold['reference']}")
    if not holds:
        say("There is no hold.")


@click.command("remove-child")
@click.argument("user_id")
@operator_options
def remove_child_command(user_id: str, *, operator_url: str, key_file: TextIO) -> None:
    """Erase a user who is known to be a child: everything, at once, as if the user had asked.

    \b
    Example:  lethe remove-child usr_… --key-file alice.key
    """
    made = asked(operator_url, key_file, "POST", "/children", {"user_id": user_id})
    say(f"Request {made['id']}: {made['status']}.")
    if made.get("is_held"):
        say("A legal hold keeps the records; uploads, outputs and devices are gone.")
