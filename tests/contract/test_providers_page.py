"""docs/providers.md: the table says what the code says, what purges do, and what tests there are."""

import re
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from providers.base import Handle, Part
from providers.registry import ADAPTERS
from tests.contract.cases import CASES
from tests.contract.orders import large_picture, run, task
from tests.emulators.base import running
from tests.emulators.case import Case
from tests.reporters import Heard

ROOT = Path(__file__).parents[2]
CELLS = re.compile(r"^\| `(\w+)` \|(.+)\|$", re.MULTILINE)
EVIDENCE = re.compile(r"(?P<what>[^`;]+?) \((?:`(?P<file>test_\w+\.py)`|by hand)\)")
VERSION = re.compile(r"(\w+) (\d+\.\d+)\b")
PIN = re.compile(r"^([a-z]+)==(\d+\.\d+)\.", re.MULTILINE)


class Row(msgspec.Struct, frozen=True):
    """What the page says of one adapter."""

    operations: str
    exposure: str
    retention: str
    deletes: str
    purge: str
    evidence: str


ROWS = {
    name: Row(*(cell.strip() for cell in cells.split("|")))
    for name, cells in CELLS.findall((ROOT / "docs" / "providers.md").read_text())
}


def test_every_adapter_has_its_row_and_it_is_true() -> None:
    """Operations, exposure, retention and deletes are those of the adapter's terms."""
    assert {name: (row.operations, row.exposure, row.retention, row.deletes) for name, row in ROWS.items()} == {
        name: (
            ", ".join(sorted(adapter.terms.operations)),
            f"`{adapter.terms.exposure.value}`",
            f"{adapter.terms.retention_s:,} s",
            f"`{adapter.terms.deletes.value}`",
        )
        for name, adapter in ADAPTERS.items()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_purge_deletes_what_the_page_says(case: Case) -> None:
    """The parts before the colon are those that a purge says are deleted, of an order with a picture of some size."""
    head, _, rest = ROWS[case.name].purge.partition(": ")
    assert rest
    emulator, heard = case.emulator(), Heard()
    wanted = task(case, tuple(large_picture() for _ in range(case.pictures)))
    unheard = Handle(id=wanted.attempt, operation=case.operation)
    with running(emulator) as url:
        async with aclosing(case.make(url)) as provider:
            await provider.warm()
            await run(provider, wanted, heard)
            purge = await provider.purge(heard.handles[-1] if heard.handles else unheard)
    assert not purge.still_served
    assert head == (", ".join(f"`{part}`" for part in Part if part in purge.deleted) or "nothing")


@pytest.mark.parametrize("name", ROWS)
def test_what_an_adapter_was_verified_against_has_its_test(name: str) -> None:
    """Each word of it names a test that is about this adapter, or says that it was tried by hand."""
    evidence = ROWS[name].evidence
    found = [EVIDENCE.fullmatch(item) for item in evidence.split("; ")]
    assert None not in found, evidence
    files = [one["file"] for one in found if one and one["file"]]
    assert "test_adapters.py" in files
    for file in {*files} - {"test_adapters.py"}:
        assert re.search(rf"(?:emulators|providers)\.{name}\b", (ROOT / "tests" / "contract" / file).read_text())
    assert ("test_adapters.py" in files) is (name in {case.name for case in CASES})


def test_versions_that_were_verified_against_are_those_that_are_installed() -> None:
    """A server or client that a test runs has the version that requirements/peers.txt pins."""
    pinned = dict(PIN.findall((ROOT / "requirements" / "peers.txt").read_text()))
    told = {
        (product.lower(), version)
        for row in ROWS.values()
        for item in EVIDENCE.finditer(row.evidence)
        if item["file"]
        for product, version in VERSION.findall(item["what"])
    }
    assert {product for product, _ in told} >= {"cog", "kserve", "mlserver"}
    assert {(product, pinned.get(product)) for product, _ in told} == told
