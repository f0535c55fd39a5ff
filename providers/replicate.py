"""
Replicate: predictions that are ordered once and polled, through the official package's client.

The package makes the client, and its transport asks again after a short 503 or 504. It never repeats a POST, so an
order is sent once; where a wait is asked for, the route's loop decides (`_Impatient`). Not used of the package: its
classes of replies (a prediction that is `aborted` makes them raise), its outputs (they are fetched with the token,
wherever they lead), its upload (no time limit; an answer that lacks one field loses the id of the file).

What Replicate keeps: predictions with their inputs and outputs for one hour, whoever asks. Pictures up to 256 KB go
inside the order; where one is larger all are uploaded, reported before the order, and deleted in purge (by themselves
after a day: so does one whose upload was not answered, of which purge therefore never says that it is gone).
"""

import asyncio
import re
from datetime import datetime
from typing import Annotated, Any, ClassVar
from urllib.parse import quote

import httpx
import msgspec

from providers import calls
from providers.base import (
    Deletes,
    Exposure,
    File,
    Handle,
    Model,
    Part,
    Progress,
    Purge,
    Reporter,
    Setup,
    Snapshot,
    Takes,
    Task,
    Terms,
    cost_of,
)
from providers.calls import Reply
from providers.failures import FailureKind, ProviderFailure
from providers.lanes import ONE, Lanes
from providers.pictures import data_uri, file_name, files_of, read
from providers.templates import check_template, model_for, outputs_of, picture_values, pointed, render, wants_picture

INLINE_BYTES = 256_000
"""How long a picture may be as a data URI."""
UNTOLD = ""  # in a handle: an upload that may be there, under an id that was never heard
PATIENCE_S = 2.0
ASK_S = 10.0  # the transport's own repetitions included
MIN_CANCEL_AFTER_S = 5

_TERMINAL = frozenset({"succeeded", "failed", "canceled", "aborted"})
_OWNED = r"[\w.-]+/[\w.-]+"
_MODEL = re.compile(rf"(?P<deployment>deployment:)?(?P<name>{_OWNED})|(?:{_OWNED}:)?(?P<version>[0-9a-f]{{64}})")
_PERCENT = re.compile(r"^\s*(\d{1,3})%\s*\|", re.MULTILINE)
_CODE = re.compile(r"\bE\d{3,4}\b")
_MODERATED = re.compile(r"nsfw|flagged as sensitive|\bE005\b|content policy|safety (?:checker|system)", re.IGNORECASE)
_UNANSWERED = frozenset(map(FailureKind, ("network", "provider_error", "overloaded", "timeout", "bad_output")))
# Out of memory: too large here, perhaps not elsewhere. Did not start in time.
_CODES = {"E1001": FailureKind.UNSUPPORTED, "E6716": FailureKind.TIMEOUT}


class _Metrics(msgspec.Struct, frozen=True, kw_only=True):
    predict_time: float | None = None


class _Prediction(msgspec.Struct, frozen=True, kw_only=True):
    # `status` is open: new ones have come before.
    id: Annotated[str, msgspec.Meta(min_length=1)]
    status: str
    output: Any = None
    error: Any = None
    logs: str | None = None
    metrics: _Metrics | None = None
    data_removed: bool | None = None
    completed_at: str | None = None
    deadline: str | None = None


class _Uploaded(msgspec.Struct, frozen=True, kw_only=True):
    id: Annotated[str, msgspec.Meta(min_length=1)]
    urls: dict[str, str] = {}


class _Impatient(httpx.AsyncHTTPTransport):
    """Ends a question whose answer asks for a wait: the package's transport would sleep through any, unheard."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        failure = calls.refused(Reply(status=response.status_code, headers=response.headers, body=b""))
        is_error = response.status_code >= httpx.codes.BAD_REQUEST and request.method != "POST"
        if is_error and (failure.kind is FailureKind.RATE_LIMITED or (failure.after_s or 0.0) > PATIENCE_S):
            await response.aclose()
            raise failure
        return response


class Replicate:
    """The adapter to Replicate's HTTP API, and to whatever speaks it."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"upscale", "restyle", "generate", "edit", "animate", "photoshoot", "remove_background"}),
        exposure=Exposure.EPHEMERAL,
        retention_s=3600,
        deletes=Deletes.TTL,
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        max_pictures=20,
        base_url="https://api.replicate.com",
        needs_secret=True,
        takes_hooks=True,
        gives_urls=True,
    )

    def __init__(self, setup: Setup) -> None:
        self._models = setup.models
        self._timeout_s = setup.timeout_s
        self._http = _client(setup)

    async def warm(self) -> None:
        """Check the models' ids and inputs; what is wrong is named by its operation."""
        for operation, model in self._models.items():
            if wrong := check_template(model) if _MODEL.fullmatch(model.model) else "model is no id of Replicate":
                raise ProviderFailure(FailureKind.UNSUPPORTED, f"{operation}: {wrong}", is_unsent=True)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Upload what is too large to go along, then create the prediction."""
        model = model_for(self._models, task.operation)
        uploads: list[str] = []
        try:
            return await self._order(task, model, reporter, uploads=uploads)
        except ProviderFailure as failure:
            failure.is_unsent = failure.is_unsent and not uploads
            raise

    async def poll(self, handle: Handle) -> Snapshot:
        """Get the prediction."""
        if not handle.id:
            raise ProviderFailure(FailureKind.UNCERTAIN, "no_id")  # whether an order followed an upload, nobody knows
        reply = await self._ask("GET", f"/v1/predictions/{quote(handle.id, safe='')}")
        prediction = calls.decoded(reply, _Prediction)
        return _snapshot(prediction, self._models.get(handle.operation, Model()))

    async def cancel(self, handle: Handle) -> bool:
        """Cancel the prediction; one that ended is returned as it is."""
        if not handle.id:
            return False
        reply = await self._ask("POST", f"/v1/predictions/{quote(handle.id, safe='')}/cancel", may_be_lost=True)
        return reply.is_ok and calls.decoded(reply, _Prediction).status in _TERMINAL

    async def purge(self, handle: Handle) -> Purge:
        """Delete the uploaded files and look for them; predictions cannot be deleted, they end by themselves."""
        found = await asyncio.gather(*map(self._is_served_after_delete, handle.uploads), return_exceptions=True)
        for failure in found:
            if isinstance(failure, BaseException):
                raise failure
        parts = frozenset({Part.UPLOAD} if handle.uploads else ())
        return Purge(still_served=parts) if any(found) else Purge(deleted=parts)

    async def healthy(self) -> None:
        """Ask who we are."""
        await self._ask("GET", "/v1/account")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def _order(self, task: Task, model: Model, reporter: Reporter, *, uploads: list[str]) -> Snapshot:
        path, body = _address(model)
        pictures = [picture if wants_picture(model.input, n) else None for n, picture in enumerate(files_of(task), 1)]
        # All inside or none: a prediction cannot be deleted, and purge speaks of the pictures as one.
        is_inside = all((picture.size_bytes + 2) // 3 * 4 <= INLINE_BYTES for picture in pictures if picture)
        given = [
            picture and (data_uri(picture) if is_inside else await self._upload(picture, task, reporter, uploads))
            for picture in pictures
        ]
        body["input"] = render(model.input, {**task.parameters, **picture_values(given), "attempt": task.attempt})
        if task.hook_url:
            body |= {"webhook": task.hook_url, "webhook_events_filter": ["completed"]}
        until = {"Cancel-After": f"{max(MIN_CANCEL_AFTER_S, int(task.deadline_s))}s"}
        reply = await calls.order(self._http, "POST", path, json=body, headers=until, within_s=self._timeout_s)
        if not reply.is_ok:
            raise _refused(reply, calls.ORDER_KINDS.get(reply.status))
        prediction = calls.decoded(reply, _Prediction, is_order=True)
        await reporter.accepted(Handle(id=prediction.id, operation=task.operation, uploads=tuple(uploads)))
        return _snapshot(prediction, model)

    async def _upload(self, picture: File, task: Task, reporter: Reporter, uploads: list[str]) -> str:
        """Upload a picture, report it, and return its address."""
        content = (file_name(picture, len(uploads) + 1), read(picture), picture.media_type)
        uploads.append(UNTOLD)
        if len(uploads) > 1:
            # Else who dies here leaves a handle whose purge speaks for this file too, by the others alone.
            await reporter.accepted(Handle(id="", operation=task.operation, uploads=tuple(uploads)))
        try:
            # Not an order: nothing is paid, so that a lost answer may be followed by another try.
            reply = await self._ask("POST", "/v1/files", files={"content": content}, within_s=task.deadline_s)
            uploaded = calls.decoded(reply, _Uploaded)
        except ProviderFailure as failure:
            if failure.is_unsent or failure.kind not in _UNANSWERED:
                uploads.pop()
            if uploads:
                await reporter.accepted(Handle(id="", operation=task.operation, uploads=tuple(uploads)))
            raise
        uploads[-1] = uploaded.id
        await reporter.accepted(Handle(id="", operation=task.operation, uploads=tuple(uploads)))
        return uploaded.urls.get("get") or f"{self._http.base_url}v1/files/{quote(uploaded.id, safe='')}"

    async def _is_served_after_delete(self, upload: str) -> bool:
        if upload == UNTOLD:
            return True  # by all that is known: it can be neither deleted nor looked for
        path = f"/v1/files/{quote(upload, safe='')}"
        await self._ask("DELETE", path, may_be_lost=True)
        return (await self._ask("GET", path, may_be_lost=True)).is_ok

    async def _ask(self, method: str, path: str, *, may_be_lost: bool = False, **content: Any) -> Reply:
        reply = await calls.ask(self._http, method, path, **{"within_s": min(self._timeout_s, ASK_S), **content})
        if reply.is_ok or (may_be_lost and calls.kind_of(reply.status) is FailureKind.LOST):
            return reply
        raise _refused(reply)


def _client(setup: Setup) -> httpx.AsyncClient:
    # Loaded here: whoever only reads the terms does not need it.
    from replicate.client import Client

    class Official(Client):
        def http(self) -> httpx.AsyncClient:
            return self._async_client

    # With a header of ours the package does not look for a token in the environment.
    return Official(
        base_url=setup.base_url,
        headers={"Authorization": f"Bearer {setup.secret}", "User-Agent": "lethe"},
        timeout=httpx.Timeout(setup.timeout_s, connect=calls.CONNECT_S),
        transport=Lanes(lambda: _Impatient(verify=calls.trust(), limits=ONE, trust_env=False)),
        follow_redirects=False,
        trust_env=False,
    ).http()


def _address(model: Model) -> tuple[str, dict[str, Any]]:
    """Say where a model is ordered: a version, an official model `owner/name`, or `deployment:owner/name`."""
    match = _MODEL.fullmatch(model.model)
    if match is None:
        raise ProviderFailure(FailureKind.UNSUPPORTED, "model_id", is_unsent=True)
    if match["version"]:
        return "/v1/predictions", {"version": match["version"]}
    return f"/v1/{'deployments' if match['deployment'] else 'models'}/{match['name']}/predictions", {}


def _snapshot(prediction: _Prediction, model: Model) -> Snapshot:
    model_s = max(0.0, (prediction.metrics and prediction.metrics.predict_time) or 0.0)
    cost_usd = cost_of(model_s, model.usd_per_s)
    match prediction.status:
        case "succeeded":
            if prediction.data_removed:
                raise ProviderFailure(FailureKind.LOST, "data_removed", cost_usd=cost_usd)
            outputs = outputs_of(pointed({"output": prediction.output}, model.output or "/output"))
            return Snapshot(progress=Progress.SUCCEEDED, outputs=outputs, cost_usd=cost_usd, model_s=model_s)
        case "failed" | "canceled" | "aborted":
            kind, detail = _ending(prediction)
            raise ProviderFailure(kind, detail, cost_usd=cost_usd)
        case "starting":
            return Snapshot(progress=Progress.QUEUED, poll_after_s=1.0)
        case _:
            return Snapshot(progress=Progress.RUNNING, share=_share(prediction.logs or ""), poll_after_s=0.5)


def _ending(prediction: _Prediction) -> tuple[FailureKind, str]:
    if prediction.status == "aborted" or (prediction.status == "canceled" and _is_past_deadline(prediction)):
        return FailureKind.TIMEOUT, "deadline"
    if prediction.status == "canceled":
        return FailureKind.CANCELED, "canceled"
    error = str(prediction.error or "")
    code = (_CODE.findall(error) or ["failed"])[-1]
    if _MODERATED.search(error):
        return FailureKind.CONTENT_REJECTED, code
    return _CODES.get(code, FailureKind.PROVIDER_ERROR), code


def _is_past_deadline(prediction: _Prediction) -> bool:
    try:
        ended, deadline = (datetime.fromisoformat(at or "") for at in (prediction.completed_at, prediction.deadline))
        return ended >= deadline
    except (ValueError, TypeError):
        return False


def _share(logs: str) -> float | None:
    percents = _PERCENT.findall(logs)
    return min(int(percents[-1]), 100) / 100 if percents else None


def _refused(reply: Reply, kind: FailureKind | None = None) -> ProviderFailure:
    """Make the failure of an error answer; nothing but whether moderation speaks is read from its text."""
    is_moderated = calls.kind_of(reply.status) is FailureKind.INVALID_INPUT and _MODERATED.search(str(reply.body))
    return calls.refused(reply, FailureKind.CONTENT_REJECTED if is_moderated else kind)
