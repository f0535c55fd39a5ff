"""Which of our languages a reader wants (RFC 9110, 12.5.4)."""

import re
from collections.abc import Sequence

_RANGE = re.compile(r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9-]+)?\s*(?:;\s*q\s*=\s*([0-9](?:\.[0-9]{0,3})?))?\s*")


def preferred(accept_language: str, known: Sequence[str], *, default: str) -> str:
    """Return the language that is wanted most, or the default where none of ours is; regions are passed over."""
    wanted: dict[str, float] = {}
    for part in accept_language.split(","):
        if match := _RANGE.fullmatch(part):
            wanted.setdefault(match[1].lower(), min(float(match[2] or 1), 1.0))
    liked = {language: wanted.get(language, wanted.get("*", 0.0)) for language in (default, *known)}
    best = max(liked, key=lambda language: liked[language])
    return best if liked[best] > 0 else default
