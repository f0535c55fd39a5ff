"""docs/acceptance.md: every promise names tests, and these exist and run. Files are read, nothing is collected."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "acceptance.md"

ROW = re.compile(r"^\| (?P<line>[0-9A-Z]+\.[0-9]+) \| (?P<claim>[^|]+) \| (?P<shown_by>[^|]*) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[^`\s]+\.py::[^`\s]+)`")
REASON = re.compile(r"^- `(?P<reason>[^`]+)`: \S", re.MULTILINE)
PARTS = {
    *(str(n) for n in range(1, 14)),
    *(f"P{n}" for n in range(1, 12)),
    *(f"G{n}" for n in range(1, 12)),
    *(f"R{n}" for n in range(1, 13)),
    *("B", "M", "D", "PB", "PM", "PD"),
}
SKIPPING_MARKS = {f"pytest.mark.{kind}" for kind in ("skip", "skipif", "xfail")}
SKIPPING_CALLS = SKIPPING_MARKS | {f"pytest.{call}" for call in ("skip", "xfail", "importorskip")}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the document."""

    number: str
    tests: tuple[str, ...]
    is_open: bool
    """Whether it admits with a question mark that something is not shown yet."""


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """What a test file says: its functions (`name` or `Class::name`), and its top-level names."""

    functions: dict[str, Function]
    names: dict[str, ast.expr]


def lines(text: str) -> list[Line]:
    """Read the rows of the document."""
    return [
        Line(number=row["line"], tests=tuple(TEST.findall(row["shown_by"])), is_open="?" in row["shown_by"])
        for row in ROW.finditer(text)
    ]


def faults(text: str, root: Path = ROOT) -> Iterator[str]:
    """Say what is wrong with the document, line by line."""
    allowed = {found["reason"] for found in REASON.finditer(text)}
    for line in lines(text):
        if line.is_open or not line.tests:
            yield f"{line.number}: no test, or not all of it"
        for test in line.tests:
            path, _, name = test.partition("::")
            module = parse(root / path)
            if module is None or name not in module.functions:
                yield f"{line.number}: there is no {test}"
            else:
                for reason in sorted(reasons(root / path, name) - allowed):
                    yield f"{line.number}: {test} may be skipped: {reason}"


def reasons(path: Path, name: str) -> set[str]:
    """Why a test may be skipped: its marks, its class's and module's, calls in it, in fixtures and in conftest.py."""
    module = parse(path)
    assert module is not None
    function = module.functions[name]
    marks = [*function.decorator_list, *module_marks(module)]
    found = {reason for mark in marks for reason in skips_of_mark(mark, module)}
    found |= set(skips_in(function))
    beside = [path, *(folder / "conftest.py" for folder in path.parents if folder.is_relative_to(ROOT / "tests"))]
    for helper in beside:
        others = parse(helper)
        for other in others.functions.values() if others else ():
            if not other.name.startswith("test_"):
                found |= set(skips_in(other))
    return found


def module_marks(module: Module) -> list[ast.expr]:
    """Return what `pytestmark` holds."""
    marks = module.names.get("pytestmark")
    return list(marks.elts) if isinstance(marks, ast.List | ast.Tuple) else [marks] if marks else []


def skips_of_mark(mark: ast.expr, module: Module) -> Iterator[str]:
    """Say why a decorator skips, following a name to what it stands for."""
    if isinstance(mark, ast.Name) and mark.id in module.names:
        yield from skips_of_mark(module.names[mark.id], module)
    elif ast.unparse(mark) in SKIPPING_MARKS:
        yield "no reason"
    else:
        yield from skips_in(mark)  # also pytest.param(..., marks=pytest.mark.skip(...)) in a parametrize


def skips_in(node: ast.AST) -> Iterator[str]:
    """Say why calls below a node skip: pytest.skip(), importorskip(), xfail(), or marks given to parameters."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in SKIPPING_CALLS:
            yield reason_of(call)


def reason_of(call: ast.Call) -> str:
    """Return the reason that a call gives, as text where it is text."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg in {"reason", "msg"}), None)
    if given is None and call.args:
        given = call.args[-1]
    if given is None:
        return "no reason"
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else ast.unparse(given)


@cache
def parse(path: Path) -> Module | None:
    """Read a test file; names that it imports from other files of the suite count as its own."""
    if not path.is_file():
        return None
    tree = ast.parse(path.read_text())
    functions: dict[str, Function] = {}
    names: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[node.name] = node
        elif isinstance(node, ast.ClassDef):
            functions |= _methods(node)
        elif isinstance(node, ast.Assign):
            names |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            names |= _imported(node)
    return Module(functions=functions, names=names)


def _imported(node: ast.ImportFrom) -> dict[str, ast.expr]:
    module = parse(ROOT / f"{(node.module or '').replace('.', '/')}.py")
    there = module.names if module else {}
    return {alias.asname or alias.name: there[alias.name] for alias in node.names if alias.name in there}


def _methods(node: ast.ClassDef) -> dict[str, Function]:
    methods = [child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)]
    for method in methods:
        method.decorator_list = [*method.decorator_list, *node.decorator_list]
    return {f"{node.name}::{method.name}": method for method in methods}


def test_every_line_names_tests_that_run() -> None:
    """Every promise is shown by tests that exist, and that nothing but an allowed reason skips."""
    found = "\n".join(faults(DOCUMENT.read_text()))
    assert not found, found


def test_nothing_in_the_suite_skips_for_another_reason() -> None:
    """Not only what a line names: every skip of every file has a reason that the document explains."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    reasons = {reason for path in files for reason in skips_in(ast.parse(path.read_text()))}
    assert reasons == set(REASON.findall(DOCUMENT.read_text()))


def test_every_part_is_there_once() -> None:
    """The document covers every part of what was promised, and no line twice."""
    text = DOCUMENT.read_text()
    numbers = [line.number for line in lines(text)]
    assert {number.partition(".")[0] for number in numbers} == PARTS
    assert len(set(numbers)) == len(numbers)
    rows = [row for row in text.splitlines() if row.startswith("| ") and not row.startswith("| line |")]
    assert len(numbers) == len(rows)


SAMPLE = """
import pytest
needs = pytest.mark.skipif(True, reason="later")
def test_plain(): ...
@needs
def test_marked(): ...
@pytest.mark.xfail
def test_expected(): ...
def test_calls():
    pytest.skip("inside")
class TestGroup:
    @pytest.mark.skip("grouped")
    def test_member(self): ...
@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.skip(reason="one value"))])
def test_values(n): ...
"""


@pytest.mark.parametrize(
    ("shown_by", "said"),
    [
        ("?", "no test"),
        ("", "no test"),
        ("`tests/test_sample.py::test_plain` <br> ?", "no test"),
        ("`tests/test_sample.py::test_gone`", "there is no"),
        ("`tests/test_gone.py::test_plain`", "there is no"),
        ("`tests/test_sample.py::test_marked`", "may be skipped: later"),
        ("`tests/test_sample.py::test_expected`", "may be skipped: no reason"),
        ("`tests/test_sample.py::test_calls`", "may be skipped: inside"),
        ("`tests/test_sample.py::TestGroup::test_member`", "may be skipped: grouped"),
        ("`tests/test_sample.py::test_values`", "may be skipped: one value"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, shown_by: str, said: str) -> None:
    """A line without a test, a test that is not there and one that may be skipped are each found."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_sample.py").write_text(SAMPLE)
    found = list(faults(f"| 1.1 | a claim | {shown_by} |\n", tmp_path))
    assert len(found) == 1
    assert said in found[0]


def test_a_good_line_has_no_fault(tmp_path: Path) -> None:
    """A test that runs, and one that is skipped for a reason that is listed, are what is wanted."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_sample.py").write_text(SAMPLE)
    row = "| 1.1 | a claim | `tests/test_sample.py::test_plain` <br> `tests/test_sample.py::test_marked` |"
    assert list(faults(f"{row}\n\n- `later`: in a sample\n", tmp_path)) == []
