"""Loads the .sql and .lua files beside it: named statements, scripts, and migrations in their order."""

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def statements(table: str) -> dict[str, str]:
    """Return the `-- name:` blocks of sql/<table>.sql by name."""
    parts = NAME.split((HERE / "sql" / f"{table}.sql").read_text())
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def migrations() -> list[tuple[int, str]]:
    """Return (number, text) of every migration, first to last."""
    files = sorted((HERE / "migrations").glob("[0-9]*.sql"))
    return [(int(file.name.split("_")[0]), file.read_text()) for file in files]


@cache
def script(name: str) -> str:
    """Return the text of lua/<name>.lua."""
    return (HERE / "lua" / f"{name}.lua").read_text()
