"""
Cog: one model in one container, ordered by `PUT /predictions/{attempt}` over a connection that stays open to the end.

There is no call that asks for a result, so submit() waits for it and poll() always says LOST: whoever lost the answer
calls submit() again with the same attempt. Cog stops a prediction when its connection closes, keeps no result after the
end, and never runs two under one id. An order that finds its attempt still running there (its worker's machine is cut
off, and Cog has not noticed) stops it, waits for that, and takes its place; with `options = { streams = true }`, for
models whose predict() is `@cog.streaming`, it joins in instead, and gets the result of that very run.

What Cog keeps: nothing after the answer, except what the model itself writes. It has no authentication: leave its port
to the workers alone. With `--upload-url` outputs go elsewhere; that is refused here, since nobody would delete them.
"""

import asyncio
import re
import time
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from providers import calls
from providers.base import Exposure, Handle, Model, Progress, Purge, Reporter, Setup, Snapshot, Takes, Task, Terms
from providers.calls import Reply
from providers.failures import FailureKind, ProviderFailure
from providers.pictures import data_uri, files_of
from providers.templates import check_template, outputs_of, picture_values, pointed, render

ORPHAN_AFTER_S = 0.5
"""How long to give a prediction that was told to stop before its place is asked for again."""

_READY = frozenset({"READY", "BUSY"})
_STARTING = "STARTING"
_COMPLETED = re.compile(rb"^event: ?completed\r?\ndata: ?(.*?)\r?$", re.MULTILINE)
_MEMORY = re.compile(r"out ?of ?memory|allocation on device", re.IGNORECASE)
_MODERATED = re.compile(r"nsfw|content policy|safety (?:checker|filter|system)", re.IGNORECASE)
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}")


class _Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model's `options` may say: whether its predict() is declared as streaming."""

    streams: bool = False


class _Metrics(msgspec.Struct, frozen=True, kw_only=True):
    predict_time: float = 0.0


class _Prediction(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    output: Any = None
    error: Any = None
    metrics: _Metrics = _Metrics()


class _Fault(msgspec.Struct, frozen=True, kw_only=True):
    loc: tuple[Any, ...] = ()


class _Invalid(msgspec.Struct, frozen=True, kw_only=True):
    detail: tuple[_Fault, ...] = ()


class _Health(msgspec.Struct, frozen=True, kw_only=True):
    status: str


class Cog:
    """The adapter to the HTTP server of a Cog container; its input names are those of the model's predict()."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"upscale", "restyle", "generate", "edit", "animate", "photoshoot", "remove_background"}),
        exposure=Exposure.LOCAL,
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        max_pictures=20,
        has_client_ids=True,
    )

    def __init__(self, setup: Setup) -> None:
        self._models = setup.models
        self._options = {name: msgspec.convert(model.options, _Options) for name, model in setup.models.items()}
        headers = {"Authorization": f"Bearer {setup.secret}"} if setup.secret else None
        self._http = calls.make_client(setup, headers=headers)

    async def warm(self) -> None:
        """Check the models' inputs; what is wrong is named by its operation."""
        for operation, model in self._models.items():
            if wrong := check_template(model):
                raise ProviderFailure(FailureKind.UNSUPPORTED, f"{operation}: {wrong}", is_unsent=True)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Order the prediction and wait for its end; when the connection closes, Cog stops it."""
        model = self._models.get(task.operation)
        if model is None:
            raise ProviderFailure(FailureKind.UNSUPPORTED, "operation", is_unsent=True)
        pictures = [data_uri(picture) for picture in files_of(task)]
        values = {**task.parameters, **picture_values(pictures), "attempt": task.attempt}
        order = {"input": render(model.input, values)}
        # Its id is ours, so that what may come to exist can be cancelled from the first byte on.
        await reporter.accepted(Handle(id=task.attempt, operation=task.operation))
        reply = await self._order(task, order)
        if not reply.is_ok:
            raise _refused(reply)
        return _snapshot(_prediction(reply), model)

    async def poll(self, handle: Handle) -> Snapshot:
        """Cog tells a result once, to the order; submit() with the same attempt is the only question there is."""
        del handle
        raise ProviderFailure(FailureKind.LOST, "answers_the_order_only")

    async def cancel(self, handle: Handle) -> bool:
        """Have the prediction stopped; True once Cog does not know it, which is when it ended."""
        reply = await calls.ask(self._http, "POST", f"{_path(handle.id)}/cancel")
        if reply.status == HTTPStatus.NOT_FOUND:
            return True
        if not reply.is_ok:
            raise calls.refused(reply)
        # It was told; a predict() that looks at nothing goes on until it looks.
        return False

    async def purge(self, handle: Handle) -> Purge:
        """Nothing is left that could be deleted."""
        del handle
        return Purge()

    async def healthy(self) -> None:
        """Ask whether the model is set up; a busy one is well."""
        reply = await calls.ask(self._http, "GET", "/health-check")
        if not reply.is_ok:
            raise calls.refused(reply)
        status = calls.decoded(reply, _Health).status
        if status not in _READY:
            kind = FailureKind.OVERLOADED if status == _STARTING else FailureKind.PROVIDER_ERROR
            raise ProviderFailure(kind, status.lower() if status.isalpha() else "not_ready")

    async def aclose(self) -> None:
        """Close every connection; what runs for us stops."""
        await self._http.aclose()

    async def _order(self, task: Task, order: dict[str, Any]) -> Reply:
        ends_at = time.monotonic() + task.deadline_s
        streams = self._options[task.operation].streams
        headers = {"Accept": "text/event-stream" if streams else "application/json"}
        is_told = False
        while (left_s := ends_at - time.monotonic()) > 0:
            reply = await calls.order(
                self._http, "PUT", _path(task.attempt), json=order, headers=headers, within_s=left_s
            )
            if reply.status != HTTPStatus.ACCEPTED:
                return reply
            if not is_told:
                # It runs already, and its answer belongs to a connection that nobody listens to any more. It is told
                # once, since every time interrupts the model, also while it cleans up.
                await self.cancel(Handle(id=task.attempt, operation=task.operation))
                is_told = True
            await asyncio.sleep(min(ORPHAN_AFTER_S, left_s))
        raise ProviderFailure(FailureKind.TIMEOUT, "still_running")


def _path(attempt: str) -> str:
    return f"/predictions/{quote(attempt, safe='')}"


def _prediction(reply: Reply) -> _Prediction:
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        return calls.decoded(reply, _Prediction, is_order=True)
    match = _COMPLETED.search(reply.body)
    if match is None:
        # The stream ended before the prediction did.
        raise ProviderFailure(FailureKind.UNCERTAIN, "stream_ended")
    return calls.decoded(Reply(status=reply.status, headers={}, body=match[1]), _Prediction, is_order=True)


def _snapshot(prediction: _Prediction, model: Model) -> Snapshot:
    match prediction.status:
        case "succeeded":
            outputs = outputs_of(pointed({"output": prediction.output}, model.output or "/output"))
            if any(output.url for output in outputs):
                raise ProviderFailure(FailureKind.BAD_OUTPUT, "uploaded_elsewhere")
            return Snapshot(
                progress=Progress.SUCCEEDED, outputs=outputs, model_s=max(0.0, prediction.metrics.predict_time)
            )
        case "failed":
            raise ProviderFailure(_kind_of(str(prediction.error or "")), "failed")
        case "canceled":
            raise ProviderFailure(FailureKind.CANCELED, "canceled")
        case _:
            # No end, and nobody will tell us of one: the order has to be sent again, under its id.
            raise ProviderFailure(FailureKind.UNCERTAIN, "no_end")


def _kind_of(error: str) -> FailureKind:
    """Say what a model's own words mean; they are read here and go nowhere."""
    if _MEMORY.search(error):
        return FailureKind.OVERLOADED
    return FailureKind.CONTENT_REJECTED if _MODERATED.search(error) else FailureKind.PROVIDER_ERROR


def _refused(reply: Reply) -> ProviderFailure:
    """Make the failure of an error answer; of a refused input, the name of the first field is told."""
    if reply.status != HTTPStatus.UNPROCESSABLE_ENTITY:
        # UNCERTAIN after a gateway's 504: the same id again is the same order.
        return calls.refused(reply, calls.ORDER_KINDS.get(reply.status))
    try:
        faults = msgspec.json.decode(reply.body, type=_Invalid).detail
    except calls.UNREADABLE:
        faults = ()
    name = str(faults[0].loc[-1]) if faults and faults[0].loc else ""
    return calls.refused(reply, detail=f"input_{name}" if _FIELD.fullmatch(name) else "input")
