"""`lethe operator-key` lets the app's own server in; `lethe webhook-key` signs what it is told."""

import click

from broker.commands.endings import say
from broker.notify.webhook_keys import new_keys
from broker.operators import new_key


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
