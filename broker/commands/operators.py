"""`lethe operator-key`: lets the app's own server in."""

import click

from broker.commands.endings import say
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
