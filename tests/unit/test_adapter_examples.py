"""The examples in the docstrings of adapters are configurations."""

import re
import sys
import textwrap
import tomllib

import pytest

from broker.config import read_config
from policies.toml_file import TomlFile
from providers.registry import ADAPTERS

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
