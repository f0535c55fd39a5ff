"""`lethe operator-key` lets the app's own server in; `lethe webhook-key` signs what it is told."""

from collections.abc import Callable
from typing import Any, TextIO, TypeVar

import click

from broker.client import Client, ServerUnreachable
from broker.commands.endings import run, say
from broker.notify.webhook_keys import new_keys
from broker.operators import new_key

F = TypeVar("F", bound=Callable[..., object])


def operator_options(command: F) -> F:
    """Let a command know where the operator's listener is, and whose key to show."""
    url = click.option(
        "--operator-url",
        envvar="LETHE_OPERATOR_URL",
        default="http://127.0.0.1:8081",
        show_default=True,
        help="Where the broker answers operators.  [env: LETHE_OPERATOR_URL]",
    )
    key = click.option(
        "--key-file",
        type=click.File("r"),
        required=True,
        help="A file with an operator key, as `lethe operator-key` printed it; - for standard input.",
    )
    return url(key(command))


@click.command("operator-key")
@click.argument("name")
def operator_key_command(name: str) -> None:
    """Make an operator key: print it once, and the line for the file that LETHE_OPERATOR_KEYS_FILE names.

    Whoever shows the key on the operator's listener may grant credits, erase a child, declare a breach, and propose
    or confirm a legal hold, for which two are needed. The file holds only its hash.

    \b
    Example:  lethe operator-key shop
    """
    if not name.isidentifier():
        raise click.BadParameter("a name is one word of letters, digits and underscores")
    key, line = new_key(name)
    say(f"The key, which is kept nowhere:  {key}\nThe line for the file:           {line}")


@click.command("webhook-key")
def webhook_key_command() -> None:
    """Make keys that sign webhooks: print them once, as lines for the file that LETHE_WEBHOOK_KEYS_FILE names.

    A receiver checks one signature: with the first key, which both sides have, or with the public key of the second.

    \b
    Example:  lethe webhook-key
    """
    secret, private, public = new_keys()
    say(f"Shared with the receiver (HMAC):  {secret}")
    say(f"Private (Ed25519), for Lethe:     {private}")
    say(f"Its public key, for receivers:    {public}")


def asked(url: str, key_file: TextIO, method: str, path: str, body: object = None) -> Any:
    """Send one request with the key in a file, and return what the answer holds."""
    return run(_ask(url, key_file.read().strip(), method, path, body))


async def _ask(url: str, key: str, method: str, path: str, body: object) -> Any:
    try:
        async with Client(url, token=key) as client:
            return await client.ask(method, path, body)
    except ServerUnreachable as exc:
        raise ServerUnreachable(f"no broker answers operators at {url}; LETHE_OPERATOR_LISTEN says where") from exc
