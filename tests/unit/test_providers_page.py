"""docs/providers.md: the table says what the code says."""

import re
from pathlib import Path

from providers.registry import ADAPTERS

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| `(\w+)` \| ([0-9,]+) s \| `(\w+)` \| [^|]+ \| [^|]+ \|$", re.MULTILINE)


def test_every_adapter_has_its_row_and_it_is_true() -> None:
    """Operations, exposure, retention and deletes are those of the adapter's terms."""
    rows = {row[0]: row[1:] for row in ROW.findall(PAGE.read_text())}
    expected = {
        name: (
            ", ".join(sorted(adapter.terms.operations)),
            adapter.terms.exposure.value,
            f"{adapter.terms.retention_s:,}",
            adapter.terms.deletes.value,
        )
        for name, adapter in ADAPTERS.items()
    }
    assert rows == expected
