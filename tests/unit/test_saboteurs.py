"""The table of mutants fits the tree, and what kills them is told apart from what does not."""

import ast
import random
from collections.abc import Generator

import msgspec
import pytest

from tests.saboteurs.mutants import ROOT, TABLE, Mutant, mutants
from tests.saboteurs.tree import Tree, Verdict, copied

MUTANTS = mutants()
AREAS = {
    *("broker/settle.py", "broker/purges.py", "broker/store/blobs.py", "broker/store/keys.py", "broker/keytable.py"),
    *("broker/keyholder.py", "broker/guard.py", "broker/lease.py", "broker/intake.py", "broker/log.py"),
    *("broker/queue.py", "broker/routing.py", "broker/receipts.py", "broker/sweep.py", "broker/settings.py"),
    *("broker/store/sql/jobs.sql", "broker/store/sql/custody.sql", "broker/store/migrations/0001_first.sql"),
    *("policies/disclosure.py", "policies/ephemeral.py", "policies/metadata.py", "policies/retention.py"),
    *("workers/engine.py", "workers/opening.py", "workers/outside.py", "workers/outputs.py", "workers/plaintext.py"),
    *("workers/images/sandbox.py", "workers/images/formats.py", "providers/download.py"),
    *("broker/deposit.py", "broker/routes.py", "broker/__main__.py", "workers/__main__.py", "workers/main.py"),
    *("broker/notifier.py", "broker/notify/webhooks.py", "broker/shops/app_store.py", "broker/store/sql/credits.sql"),
}


def test_there_is_a_mutant_for_every_part() -> None:
    """Thirty-four at least, each under a name of its own, and one in every file that the guarantee rests on."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 34
    assert {mutant.file for mutant in MUTANTS} >= AREAS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_one_line_of_the_tree(mutant: Mutant) -> None:
    """Its line stands there once, something else takes its place, and that is no mere slip of the pen."""
    assert "\n" not in mutant.line + mutant.by
    changed = mutant.applied_to((ROOT / mutant.file).read_text())
    if mutant.file.endswith(".py"):
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse((ROOT / mutant.file).read_text()))


@pytest.mark.parametrize("name", sorted({mutant.killed_by for mutant in MUTANTS}))
def test_what_kills_it_exists(name: str) -> None:
    """A test that was renamed kills nothing."""
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("text", ["nothing of it", "twice, twice"])
def test_a_line_that_does_not_fit_is_refused(text: str) -> None:
    """A mutant of a line that has changed meanwhile would prove nothing."""
    mutant = msgspec.structs.replace(MUTANTS[0], line="twice")
    with pytest.raises(ValueError, match="has its line"):
        mutant.applied_to(text)


@pytest.fixture(scope="module")
def tree() -> Generator[Tree]:
    with copied() as tree:
        yield tree


def test_one_is_killed(tree: Tree) -> None:
    """Of those that need no servers one, drawn anew with every change of the table; `make saboteurs` takes all."""
    cheap = [mutant for mutant in MUTANTS if mutant.killed_by.startswith("tests/unit/")]
    mutant = random.Random(TABLE.read_text()).choice(cheap)
    with tree.sabotaged(mutant):
        assert tree.run([mutant.killed_by])[0] is Verdict.KILLED, mutant.name


def test_a_survivor_is_told_and_the_tree_is_left_alone(tree: Tree) -> None:
    """A change that no test notices, and a test that cannot be run, are not called killed."""
    path, line = "broker/frames.py", "from enum import "
    harmless = Mutant(name="-", breaks="-", file=path, line=line, by=f"import enum; {line}", killed_by="")
    before = (ROOT / path).read_text()
    with tree.sabotaged(harmless):
        assert (ROOT / path).read_text() == before
        assert tree.run(["tests/unit/test_frames.py::test_the_body_is_a_place_not_a_copy"])[0] is Verdict.SURVIVED
        assert tree.run(["tests/unit/test_frames.py::test_that_is_not_there"])[0] is Verdict.BROKEN
