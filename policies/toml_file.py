"""Reads a TOML file that an operator wrote into structs, and says file, line and reason where it is wrong."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")
TomlPath = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*\[(\[)?\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*([A-Za-z0-9_."' -]+?)\s*=""")
_MSGSPEC_AT = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_MSGSPEC_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_TOMLLIB_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class ConfigInvalid(Exception):
    """A file that an operator wrote is wrong: which file, which line (0 where there is none), and why."""

    def __init__(self, *, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}" if line else f"{file}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class TomlFile:
    """A parsed file that still knows its lines."""

    def __init__(self, text: str, *, name: str) -> None:
        self.name = name
        self._lines = text.splitlines()
        try:
            self.tree: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise self._unreadable(exc) from None
        self._places = _places(self._lines)

    @classmethod
    def read(cls, path: Path) -> "TomlFile":
        """Read a file, or raise ConfigInvalid where that fails."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as exc:
            raise ConfigInvalid(file=str(path), line=0, reason=f"cannot be read: {exc.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigInvalid(file=str(path), line=0, reason="is not UTF-8 text") from None
        return cls(text, name=str(path))

    def decode(self, into: type[T], *, at: TomlPath = ()) -> T:
        """Turn the whole file, or the part at a path, into a struct; raise ConfigInvalid."""
        part: Any = self.tree
        for step in at:
            part = part[step]
        try:
            return msgspec.convert(part, into)
        except msgspec.ValidationError as exc:
            within, reason = _explain(str(exc))
            raise self.invalid(at + within, reason) from None

    def invalid(self, at: TomlPath, reason: str) -> ConfigInvalid:
        """Make the error for a place in the file."""
        where = ".".join(str(step) for step in at)
        return ConfigInvalid(file=self.name, line=self.line_of(at), reason=f"{where}: {reason}" if where else reason)

    def line_of(self, at: TomlPath) -> int:
        """Return the line of a place, or of the nearest thing around or below it; 0 where the file has none of it."""
        around = [(len(path), -line) for line, path in self._places if path == at[: len(path)]]
        if not around:
            return min((line for line, path in self._places if path[: len(at)] == at and at), default=0)
        depth, negative_line = max(around)
        return self._inside(-negative_line, at[depth:])

    def _inside(self, line: int, rest: TomlPath) -> int:
        """Look for the first key of `rest` within a value that spans lines."""
        end = min((other for other, _ in self._places if other > line), default=len(self._lines) + 1)
        for key in (step for step in rest if isinstance(step, str)):
            found = [n for n in range(line, end) if re.search(rf"\b{re.escape(key)}\b\s*=", self._lines[n - 1])]
            if found:
                return found[0]
        return line

    def _unreadable(self, exc: tomllib.TOMLDecodeError) -> ConfigInvalid:
        message = str(exc)
        match = _TOMLLIB_LINE.search(message)
        line = len(self._lines) if match is None or match[1] is None else int(match[1])
        return ConfigInvalid(file=self.name, line=line, reason=_TOMLLIB_LINE.sub("", message))


def _explain(message: str) -> tuple[TomlPath, str]:
    """Split msgspec's message into the path that it names and the reason."""
    match = _MSGSPEC_AT.search(message)
    reason = message[: match.start()] if match else message
    steps = _MSGSPEC_STEP.finditer(match[1]) if match else iter(())
    path: TomlPath = tuple(step[1] if step[1] else int(step[2]) for step in steps)
    unknown = _UNKNOWN_FIELD.search(reason)
    return (*path, unknown[1]) if unknown else path, reason


def _places(lines: list[str]) -> list[tuple[int, TomlPath]]:
    """List the line and path of every table header and key."""
    places: list[tuple[int, TomlPath]] = []
    counts: dict[TomlPath, int] = {}
    table: TomlPath = ()
    for number, line in enumerate(lines, start=1):
        if (header := _HEADER.match(line)) and (keys := _keys(header[2])):
            table = _table(keys, counts, is_array=bool(header[1]))
            places.append((number, table))
        elif (key := _KEY.match(line)) and (keys := _keys(key[1])):
            places.append((number, table + keys))
    return places


def _table(keys: TomlPath, counts: dict[TomlPath, int], *, is_array: bool) -> TomlPath:
    """Return a header's full path: an array of tables adds an index, and a table below one belongs to its last."""
    path: TomlPath = ()
    for key in keys[:-1]:
        path = (*path, key)
        if path in counts:
            path = (*path, counts[path] - 1)
    path = (*path, keys[-1])
    if is_array:
        counts[path] = counts.get(path, 0) + 1
        path = (*path, counts[path] - 1)
    return path


def _keys(dotted: str) -> TomlPath:
    """Split a dotted, perhaps quoted, key as TOML does; empty where it is none."""
    try:
        node: object = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(node, dict):
        key, node = next(iter(cast("dict[str, object]", node).items()))
        keys.append(key)
    return tuple(keys)
