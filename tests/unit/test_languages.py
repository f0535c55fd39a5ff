"""Accept-Language: what is wanted most of what there is."""

import pytest

from broker.api.languages import preferred


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("tr", "tr"),
        ("tr-TR,tr;q=0.9,en-US;q=0.8,en;q=0.7", "tr"),
        ("en;q=0.5, tr;q=0.8", "tr"),
        ("de, tr;q=0.1", "tr"),
        ("de, fr", "en"),
        ("de, *;q=0.5", "en"),
        ("tr;q=0, *", "en"),
        ("en;q=0, tr;q=0", "en"),
        ("TR", "tr"),
        ("tr;q=zzz, ;;;", "en"),
        ("x" * 5000, "en"),
    ],
)
def test_the_language_that_is_wanted_most(header: str, language: str) -> None:
    """Weights count, regions do not, and what cannot be read, or what we do not have, is English."""
    assert preferred(header, ("en", "tr"), default="en") == language
