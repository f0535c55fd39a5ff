"""
Any provider whose API is plain HTTP, described wholly in lethe.toml: one call that answers, or order, poll and delete.

    [provider.acme]
    adapter = "http"
    base_url = "https://api.acme.example"
    secret = "env:ACME_KEY"
    exposure = "ephemeral"
    retention_s = 3600
    contract = "their terms of 2026-05: jobs are deleted after an hour"
    hosts = ["*.cdn.acme.example"]
    options = { auth = "header:x-key", health_path = "/status" }

    [provider.acme.operation.upscale]
    model = "upscaler-2"
    input = { model = "upscaler-2", image = "$image", scale = "$scale:2" }
    output = "/result/images"

    [provider.acme.operation.upscale.options]
    path = "/v1/jobs"
    id = "/job/id"
    state = "/job/state"
    done = ["finished"]
    failed = ["error"]
    canceled = ["stopped"]
    poll_path = "/v1/jobs/{id}"
    cancel_path = "/v1/jobs/{id}/cancel"
    delete_path = "/v1/jobs/{id}"
    deleted = ["upload", "output", "record"]
    errors = { pointer = "/error/message", rejected = ["nsfw", "policy"], payment = ["credits"] }

Without `id` the call itself answers: with JSON that `output` points into, or, where `output` is empty, with the picture
as its body. Without `state` a poll answers 202 until it answers with the result. A state that nobody named counts as
running. Pointers are RFC 6901. In a form (`content = "multipart"`) pictures are files, under the names of `input`.
What such a provider keeps cannot be known here: 30 days are assumed, unless the operator names a contract.
"""

import re
from collections.abc import Collection
from http import HTTPStatus
from typing import Any, ClassVar, cast
from urllib.parse import quote

import msgspec

from providers import calls
from providers.base import (
    Deletes,
    Exposure,
    File,
    Handle,
    Model,
    Output,
    Progress,
    Purge,
    Reporter,
    Setup,
    Snapshot,
    Takes,
    Task,
    Terms,
)
from providers.calls import Reply
from providers.endpoint import Endpoint, Options
from providers.failures import FailureKind, ProviderFailure
from providers.pictures import data_uri, file_name, files_of, in_base64, read
from providers.templates import as_text, model_for, outputs_of, picture_values, pointed, render

_ASSUMED_S = 30 * 24 * 3600
_WORDS_IN_BYTES = 8192
_MAX_POLL_AFTER_S = 10.0
_GONE = frozenset({404, 410})
_TOO_LATE = frozenset({400, 404, 409, 410, 422})
_ORDER_KINDS = {**calls.ORDER_KINDS, 410: FailureKind.UNSUPPORTED}
_OF_RESULT = calls.OF_ORDER - {FailureKind.LOST}  # of a job that is there, and done
_ID = re.compile(r"[!-~]{1,200}")


class Http:
    """The adapter to an API that its configuration describes."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"upscale", "restyle", "animate", "generate", "edit", "photoshoot", "remove_background"}),
        exposure=Exposure.LOGGED,
        retention_s=_ASSUMED_S,
        deletes=Deletes.API,
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        max_pictures=20,
    )

    def __init__(self, setup: Setup) -> None:
        try:
            self._options = msgspec.convert(dict(setup.options), Options)
            self._endpoints = {name: msgspec.convert(model.options, Endpoint) for name, model in setup.models.items()}
        except msgspec.ValidationError as exc:
            raise ProviderFailure(FailureKind.UNSUPPORTED, f"options: {exc}", is_unsent=True) from None
        self._models = setup.models
        self._auth_fault = self._options.fault(setup.secret)
        self._http = calls.make_client(setup, headers=self._options.headers(setup.secret))

    async def warm(self) -> None:
        """Check what the configuration says of the provider, and of each operation."""
        faults = {name: endpoint.fault(self._models[name]) for name, endpoint in self._endpoints.items()}
        for name, fault in {"options": self._auth_fault, **faults}.items():
            if fault:
                raise ProviderFailure(FailureKind.UNSUPPORTED, f"{name}: {fault}", is_unsent=True)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Order; where the answer is an id, report it."""
        model, endpoint = self._configured(task.operation)
        within_s = 0.0 if endpoint.id else task.deadline_s
        path = endpoint.path.replace("{model}", quote(model.model, safe="/"))
        content = _content(task, model, endpoint)
        reply = await calls.order(self._http, endpoint.method, path, within_s=within_s, **content)
        if not reply.is_ok:
            raise _refusal(reply, endpoint, _ORDER_KINDS.get(reply.status))
        if not endpoint.id:
            return Snapshot(progress=Progress.SUCCEEDED, outputs=_outputs(reply, model, is_order=True))
        handle = Handle(id=_id(reply, endpoint), operation=task.operation)
        await reporter.accepted(handle)
        if not endpoint.state:
            return _going_on(reply, endpoint, Progress.QUEUED)
        if endpoint.result_path and _progress(reply, endpoint) is Progress.SUCCEEDED:
            # Polls ask for the result: a question that failed in here would be an order that failed, and placed again.
            return _going_on(reply, endpoint, Progress.RUNNING)
        return await self._standing(reply, handle)

    async def poll(self, handle: Handle) -> Snapshot:
        """Ask for the attempt's state, and for its result where that lies elsewhere."""
        endpoint = self._configured(handle.operation)[1]
        reply = await self._ask(handle, endpoint.poll_path)
        if not reply.is_ok:
            raise _refusal(reply, endpoint, believed=calls.OF_ORDER)
        return await self._standing(reply, handle)

    async def cancel(self, handle: Handle) -> bool:
        """Have it stopped, and look whether it did."""
        endpoint = self._configured(handle.operation)[1]
        if not endpoint.cancel_path or not handle.id:
            return False
        reply = await self._ask(handle, endpoint.cancel_path, endpoint.cancel_method)
        if not reply.is_ok and reply.status not in _TOO_LATE:
            raise _refusal(reply, endpoint)
        try:
            await self.poll(handle)
        except ProviderFailure as ended:
            return ended.kind in {FailureKind.CANCELED, FailureKind.LOST}
        return False

    async def purge(self, handle: Handle) -> Purge:
        """Delete the attempt, and look whether it is gone."""
        endpoint = self._configured(handle.operation)[1]
        if not endpoint.delete_path or not handle.id:
            return Purge()
        reply = await self._ask(handle, endpoint.delete_path, endpoint.delete_method)
        if not reply.is_ok and reply.status not in _GONE:
            raise _refusal(reply, endpoint)
        seen = await self._ask(handle, endpoint.poll_path)
        if not seen.is_ok and seen.status not in _GONE:
            raise _refusal(seen, endpoint)
        if seen.status in _GONE or _state(seen, endpoint) in endpoint.gone:
            return Purge(deleted=frozenset(endpoint.deleted))
        return Purge(still_served=frozenset(endpoint.deleted))

    async def healthy(self) -> None:
        """Ask the path that tells, where there is one."""
        if self._options.health_path:
            reply = await calls.ask(self._http, "GET", self._options.health_path)
            if not reply.is_ok:
                raise calls.refused(reply)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _configured(self, operation: str) -> tuple[Model, Endpoint]:
        return model_for(self._models, operation), self._endpoints[operation]

    async def _ask(self, handle: Handle, path: str, method: str = "GET") -> Reply:
        headers = self._endpoints[handle.operation].headers
        return await calls.ask(self._http, method, path.replace("{id}", quote(handle.id, safe="")), headers=headers)

    async def _standing(self, reply: Reply, handle: Handle) -> Snapshot:
        model, endpoint = self._configured(handle.operation)
        progress = _progress(reply, endpoint)
        if progress is not Progress.SUCCEEDED:
            return _going_on(reply, endpoint, progress)
        if endpoint.result_path:
            reply = await self._ask(handle, endpoint.result_path)
            if not reply.is_ok:
                raise _refusal(reply, endpoint, believed=_OF_RESULT)
        return Snapshot(progress=progress, outputs=_outputs(reply, model))


def _content(task: Task, model: Model, endpoint: Endpoint) -> dict[str, Any]:
    """Make the body of an order."""
    try:
        files = files_of(task)
        pictures: list[Any] = list(files)
        if endpoint.content == "json":
            pictures = [data_uri(file) if endpoint.pictures == "data_uri" else in_base64(file) for file in files]
        values = {**task.parameters, **picture_values(pictures), "attempt": task.attempt}
        fields: dict[str, Any] = render(model.input, values)
        body = {"json": fields} if endpoint.content == "json" else {"files": _form(fields, files)}
        return {**body, "headers": endpoint.headers}
    except ProviderFailure as failure:
        failure.is_unsent = True
        raise


FormPart = tuple[str | None, bytes, str] | tuple[None, str]


def _form(fields: dict[str, Any], files: tuple[File, ...]) -> list[tuple[str, FormPart]]:
    parts: list[tuple[str, FormPart]] = []
    for name, value in fields.items():
        many = cast("list[Any]", value) if isinstance(value, list) else [value]
        if all(isinstance(one, File) for one in many):
            parts += [(name, (file_name(file, files.index(file) + 1), read(file), file.media_type)) for file in many]
        else:
            parts.append((name, (None, as_text(value))))
    return parts


def _id(reply: Reply, endpoint: Endpoint) -> str:
    document = calls.decoded(reply, object, is_order=True)
    found = _found(document, endpoint.id)
    text = str(found) if isinstance(found, str | int) and not isinstance(found, bool) else ""
    # An id of dots alone would climb in a path.
    if not _ID.fullmatch(text) or not text.strip("."):
        raise ProviderFailure(FailureKind.UNCERTAIN, "no_id")
    return text


def _found(document: Any, pointer: str) -> Any:
    try:
        return pointed(document, pointer)
    except ProviderFailure:
        return None


def _state(reply: Reply, endpoint: Endpoint) -> str:
    state = _found(reply.json(), endpoint.state) if endpoint.state else ""
    return state if isinstance(state, str) else ""


def _progress(reply: Reply, endpoint: Endpoint) -> Progress:
    """Say where an attempt stands; raise where it ended without a result."""
    if not endpoint.state:
        return Progress.RUNNING if reply.status == HTTPStatus.ACCEPTED else Progress.SUCCEEDED
    calls.decoded(reply, object)
    state = _state(reply, endpoint)
    if state in endpoint.failed:
        raise ProviderFailure(_kind_in_words(reply, endpoint) or FailureKind.PROVIDER_ERROR, "failed")
    if state in endpoint.canceled:
        raise ProviderFailure(FailureKind.CANCELED)
    if state in endpoint.gone:
        raise ProviderFailure(FailureKind.LOST, "gone")
    if state in endpoint.done:
        return Progress.SUCCEEDED
    return Progress.QUEUED if state in endpoint.queued else Progress.RUNNING


def _going_on(reply: Reply, endpoint: Endpoint, progress: Progress) -> Snapshot:
    after_s = reply.after_s() or endpoint.poll_after_s
    return Snapshot(progress=progress, poll_after_s=min(after_s, _MAX_POLL_AFTER_S))


def _outputs(reply: Reply, model: Model, *, is_order: bool = False) -> tuple[Output, ...]:
    media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not model.output and media_type.startswith(("image/", "video/")):
        if not reply.body:
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_output")
        return (Output(data=reply.body, media_type=media_type),)
    document = calls.decoded(reply, object, is_order=is_order)
    if not model.output:
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_picture")
    return outputs_of(pointed(document, model.output))


def _refusal(
    reply: Reply, endpoint: Endpoint, kind: FailureKind | None = None, believed: Collection[FailureKind] | None = None
) -> ProviderFailure:
    return calls.refused(reply, _kind_in_words(reply, endpoint) or kind, believed=believed)


def _kind_in_words(reply: Reply, endpoint: Endpoint) -> FailureKind | None:
    errors = endpoint.errors
    at = _found(reply.json(), errors.pointer) if errors.pointer else None
    told = at.encode() if isinstance(at, str) else b"" if errors.pointer else reply.body
    text = told[:_WORDS_IN_BYTES].decode(errors="replace").casefold()
    meanings = (
        (FailureKind.CONTENT_REJECTED, errors.rejected),
        (FailureKind.PAYMENT, errors.payment),
        (FailureKind.OVERLOADED, errors.overloaded),
        (FailureKind.INVALID_INPUT, errors.invalid),
    )
    return next((kind for kind, words in meanings if any(word.casefold() in text for word in words)), None)
