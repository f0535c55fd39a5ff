"""What the demo prints: steps, tables, and checks that are counted."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.custody import Copy, Evidence, Holder
from broker.demo.metadata import Detail
from broker.verify import in_words, thing

_SHORT = 6


class Report:
    """Prints, and remembers which checks failed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failed: list[str] = []

    def step(self, words: str) -> None:
        """Begin the next part."""
        self.console.print(Text(f"\n{words}", style="bold"), soft_wrap=True)

    def say(self, words: str) -> None:
        """Print a line as it is."""
        self.console.print(Text(f"  {words}"), soft_wrap=True)

    def check(self, words: str, is_true: bool) -> None:
        """Print whether something that has to hold does."""
        mark, style = ("✓", "green") if is_true else ("✗", "bold red")
        self.console.print(Text(f"  {mark} ", style=style) + Text(words, style=""), soft_wrap=True)
        if not is_true:
            self.failed.append(words)

    def details(self, before: Sequence[Detail], after: Sequence[Detail], *, where: str = "in the result") -> None:
        """Show what the photo said about its making, and what another picture says."""
        table = Table("metadata", "in the photo", where, box=None, padding=(0, 2))
        left = {detail.name: detail.text for detail in after}
        for detail in before:
            table.add_row(Text(detail.name), Text(detail.text), Text(left.pop(detail.name, "–")))
        for name, text in left.items():
            table.add_row(Text(name), Text("–"), Text(text))
        self.console.print(table)

    def custody(self, copies: Sequence[Copy]) -> None:
        """Show every copy there was, and how it is known to be gone."""
        table = Table("copy", "name", "gone", "how that is known", box=None, padding=(0, 2))
        for copy in copies:
            gone = f"{copy.closed_at:%H:%M:%S}" if copy.closed_at else "still kept"
            known = in_words(copy.evidence) if copy.evidence else "kept until the user deletes it, or its time is up"
            where = f" ({copy.detail})" if copy.holder is Holder.PROCESS else ""
            table.add_row(thing(copy.holder, copy.what) + where, f"{copy.ref[:_SHORT]}…", gone, known)
        self.console.print(table)

    def theirs(self, copies: Sequence[Copy]) -> None:
        """Show what a provider had, and what is known of it; nothing here is called gone that is not."""
        table = Table("what went there", "what is known of it", "until", "stated", box=None, padding=(0, 2))
        for copy in copies:
            known = in_words(copy.evidence or Evidence.UNKNOWN)
            until = f"{copy.until:%Y-%m-%d %H:%M:%S}" if copy.until else "–"
            stated = f"{copy.closed_at:%H:%M:%S}" if copy.closed_at else "not yet"
            table.add_row(f"{thing(copy.holder, copy.what)} at {copy.provider}", known, until, stated)
        self.console.print(table)
