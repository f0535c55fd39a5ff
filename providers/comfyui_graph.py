"""A ComfyUI workflow: read from an export in API format, filled for one attempt. Never speaks to anybody."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from providers.base import Model
from providers.failures import FailureKind, ProviderFailure
from providers.templates import check_template, render

MAX_SEED = 1 << 53
"""Seeds stay exact in JSON."""
MARK = "attempt"
"""An input that no node knows. It tells two runs of the same words apart: ComfyUI would show the first's file again."""


class _Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model's `options` may say: the export, and the inputs that get another number for every attempt."""

    workflow_file: str
    seeds: tuple[str, ...] = ()


class _Node(msgspec.Struct, frozen=True, kw_only=True):
    class_type: str
    inputs: dict[str, Any]


Graph = Mapping[str, _Node]


class Workflow:
    """The export of one operation, and what of it is filled."""

    def __init__(self, model: Model) -> None:
        self._options = msgspec.convert(model.options, _Options)
        self._input = model.input
        self._wrong = check_template(model)
        self._loaded: Graph | None = None

    def load(self) -> Graph:
        """Read the file, once; raise UNSUPPORTED with what to mend."""
        if self._loaded is None:
            graph = self._read()
            if wrong := self._wrong or _fault((*self._input, *self._options.seeds), graph):
                raise ProviderFailure(FailureKind.UNSUPPORTED, wrong, is_unsent=True)
            self._loaded = graph
        return self._loaded

    def fill(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Write the graph of one attempt: values in their places, seeds drawn from its id, the rest as exported."""
        graph = self.load()
        inputs = {node: dict(made.inputs) for node, made in graph.items()}
        attempt = str(values[MARK])
        drawn = dict.fromkeys(self._options.seeds, uuid.UUID(attempt).int % MAX_SEED)
        for place, value in {**drawn, **render(self._input, values)}.items():
            node, _, name = place.partition(".")
            inputs[node][name] = value
        for node in set(graph) - set(_linked(graph)):
            inputs[node][MARK] = attempt
        return {node: {"class_type": made.class_type, "inputs": inputs[node]} for node, made in graph.items()}

    def is_filled(self, node: str, name: str) -> bool:
        """Whether an input is one that tasks fill."""
        return f"{node}.{name}" in self._input

    def _read(self) -> Graph:
        path = Path(self._options.workflow_file)
        try:
            graph = msgspec.json.decode(path.read_bytes(), type=dict[str, _Node])
        except OSError as exc:
            raise _unusable(f"{path.name} cannot be read: {exc.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise _unusable(
                f"{path.name} is no workflow in API format; export it with Workflow > Export (API)"
            ) from None
        if not graph:
            raise _unusable(f"{path.name} is empty")
        return graph


def _unusable(reason: str) -> ProviderFailure:
    return ProviderFailure(FailureKind.UNSUPPORTED, f"workflow_file: {reason}", is_unsent=True)


def _fault(places: tuple[str, ...], graph: Graph) -> str:
    for place in places:
        node, _, name = place.partition(".")
        if node not in graph:
            return f"input: {place} names no node of the workflow; write NODE.INPUT, such as 1.image"
        if name not in graph[node].inputs:
            return f"input: node {node} ({graph[node].class_type}) has no input {name}"
    return ""


def _linked(graph: Graph) -> Iterator[str]:
    """Name the nodes whose outputs another node takes; the others are where a workflow ends."""
    for node in graph.values():
        for value in node.inputs.values():
            if isinstance(value, list) and len(cast("list[Any]", value)) == 2:
                yield str(cast("list[Any]", value)[0])
