"""docs/providers.md: the table says what the code says; and so do the examples in the docstrings of adapters."""

import re
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from broker.config import read_config
from policies.toml_file import TomlFile
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


EXAMPLE = re.compile(r"^    \[provider\..*?(?=^\S)", re.MULTILINE | re.DOTALL)
EXAMPLES = {
    name: textwrap.dedent(found[0])
    for name, adapter in ADAPTERS.items()
    if (found := EXAMPLE.search(sys.modules[adapter.__module__].__doc__ or ""))
}
"""The configuration that the docstring of an adapter's module shows."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_an_adapter_is_a_configuration(name: str) -> None:
    """What is copied from a docstring into lethe.toml is accepted."""
    (provider,) = tomllib.loads(EXAMPLES[name])["provider"]
    (operation,) = tomllib.loads(EXAMPLES[name])["provider"][provider]["operation"]
    text = f'{EXAMPLES[name]}\n[[route]]\noperation = "{operation}"\ntiers = [{{ {provider} = 1 }}]\n'
    assert provider in read_config(TomlFile(text, name="lethe.toml")).providers
