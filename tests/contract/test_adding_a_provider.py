"""docs/adding-a-provider.md, followed to the letter in a copy of this repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "halcyon"
BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COPIED = ("broker", "workers", "policies", "providers", "tests", "docs", "requirements", "pyproject.toml")
NEW = (f"providers/{NAME}.py", f"tests/emulators/{NAME}.py", "lethe.toml")
LISTS = {
    "providers/registry.py": ("from providers.base", "ADAPTERS: dict[str, Adapter] = {\n"),
    "tests/contract/cases.py": ("from tests.emulators", "CASES: tuple[Case, ...] = (\n"),
}
"""Files that get an import and a line: above what, and under what."""
TABLE = "docs/providers.md"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository and put every block of the page where it belongs."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    blocks = dict(BLOCK.findall((ROOT / "docs" / "adding-a-provider.md").read_text()))
    assert set(blocks) == {*NEW, *LISTS, TABLE}
    for name in NEW:
        (copy / name).write_text(blocks[name])
    for name, (above, under) in LISTS.items():
        imported, line = blocks[name].splitlines(keepends=True)
        text = (copy / name).read_text().replace(above, imported + above, 1)
        (copy / name).write_text(text.replace(under, under + line))
    table = (copy / TABLE).read_text()
    (copy / TABLE).write_text(table.replace("| `http` |", f"{blocks[TABLE]}| `http` |"))
    return copy


def told(checkout: Path, *arguments: str) -> str:
    """Run a module there; it has to end well."""
    argv = [sys.executable, "-m", *arguments]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_contract_suite_runs_over_it(checkout: Path) -> None:
    """Orders, faults, cancel and purge at its emulator, and its row: all pass, and there are many."""
    suites = ("tests/contract/test_adapters.py", "tests/contract/test_providers_page.py")
    said = told(checkout, "pytest", *suites, "-q", "-k", f"{NAME} or row", "-p", "no:cacheprovider")
    assert int(re.findall(r"(\d+) passed", said)[-1]) > 40
    assert "skipped" not in said


def test_its_configuration_is_accepted(checkout: Path) -> None:
    """`lethe config check` takes the page's lethe.toml, and would not without the adapter."""
    told(checkout, "broker.cli", "config", "check", "lethe.toml")
    argv = [sys.executable, "-m", "broker.cli", "config", "check", str(checkout / "lethe.toml")]
    here = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert here.returncode != 0
    assert NAME in here.stdout + here.stderr


def test_it_is_written_as_everything_here(checkout: Path) -> None:
    """The linter has nothing to say."""
    files = [name for name in NEW if name.endswith(".py")]
    told(checkout, "ruff", "check", "--no-cache", *files)
    told(checkout, "ruff", "format", "--no-cache", "--check", *files)
