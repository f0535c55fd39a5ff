"""docs/promises.md: every promise of every app is kept by a test that exists, or says what is missing."""

import ast
import re
from collections import Counter

from policies.registry import profile_names
from tests.measured import ROOT
from tests.promises import APPS, PAGE, page, promises

COUNTS = {"core": 7, "xpictures": 14, "m2r": 13, "imaginex": 7, "minimal": 6, "headpix": 9}


def test_the_page_is_made_of_the_file() -> None:
    """`python -m tests.promises` would change nothing."""
    assert PAGE.read_text() == page()


def test_every_promise_is_there_once() -> None:
    """As many of each app as it makes, numbered from 1, and a profile for each app."""
    assert [promise.id for promise in promises()] == [f"{app}-{n}" for app in APPS for n in range(1, COUNTS[app] + 1)]
    assert Counter(promise.app for promise in promises()) == COUNTS
    assert set(APPS) - {"core"} == set(profile_names())


def test_a_promise_has_a_test_or_a_reason() -> None:
    """What is called kept names tests that exist, and one of them carries its id."""
    for promise in promises():
        assert promise.tests or promise.open, promise.id
        sources = [source_of(test) for test in promise.tests]
        assert not sources or any(re.search(rf"\b{promise.id}\b", source) for source in sources), promise.id


def source_of(test: str) -> str:
    """The whole text of a test."""
    file, _, name = test.partition("::")
    text = (ROOT / file).read_text()
    (found,) = (node for node in ast.walk(ast.parse(text)) if getattr(node, "name", "") == name)
    return ast.get_source_segment(text, found) or ""
