"""
fal: requests that are put into its queue once and polled, over plain HTTP (its own client has fixed addresses).

By its documentation fal keeps the JSON of a request, with the pictures in it, for 30 days, and outputs on a CDN that
anyone with the link can read. Every order therefore says: store no payload, let outputs end after an hour, hide them
from whoever has only the link. A result that is not stored is kept for up to an hour, so that an hour is the floor.
Requests stay in the account's log, hence `logged`. purge deletes the payloads and the outputs, then looks for both.

The key needs admin scope: for deletes, and to sign links to outputs that are hidden. With `acl = "allow"` outputs are
not hidden, and not signed. Links to outputs are never stored: whoever reads one can read the picture.
"""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Literal, cast
from urllib.parse import quote, urlsplit

import msgspec

from providers import calls
from providers.base import (
    Deletes,
    Exposure,
    Handle,
    Model,
    Output,
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
from providers.fal_cdn import is_served, watcher
from providers.fal_errors import KINDS, refused, told_by
from providers.pictures import data_uri, files_of
from providers.templates import check_template, model_for, outputs_of, picture_values, pointed, render, wants_picture

KEPT_S = 3600
"""When fal deletes an output by itself."""
SIGNED_S = 900
"""How long a signed link to an output holds: the download follows at once."""
NO_REQUEST = "00000000-0000-0000-0000-000000000000"
_NAMESPACES = frozenset({"workflows", "comfy"})


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[provider.NAME.options]`; the queue itself is `base_url`."""

    platform_url: str = "https://api.fal.ai/v1"
    cdn_host: str = "fal.media"
    """Outputs lie on this host, or on one below it."""
    acl: Literal["hide", "forbid", "allow"] = "hide"


class _Queued(msgspec.Struct, frozen=True, kw_only=True):
    request_id: Annotated[str, msgspec.Meta(min_length=1)]
    status_url: str = ""
    response_url: str = ""
    cancel_url: str = ""


class _Metrics(msgspec.Struct, frozen=True, kw_only=True):
    inference_time: float | None = None


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    # `status` is open.
    status: str
    error: Any = None
    error_type: str | None = None
    metrics: _Metrics | None = None


class _Link(msgspec.Struct, frozen=True, kw_only=True):
    link: str = ""
    exception: Any = None


class _Deleted(msgspec.Struct, frozen=True, kw_only=True):
    cdn_delete_results: tuple[_Link, ...] = ()


class _Signed(msgspec.Struct, frozen=True, kw_only=True):
    signed_url: str


class Fal:
    """The adapter to fal's queue."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"upscale", "restyle", "generate", "edit", "animate", "photoshoot", "remove_background"}),
        exposure=Exposure.LOGGED,
        retention_s=KEPT_S,
        deletes=Deletes.API,
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        max_pictures=20,
        max_picture_bytes=10_000_000,
        base_url="https://queue.fal.run",
        needs_secret=True,
        takes_hooks=True,
        gives_urls=True,
    )

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._options = msgspec.convert(dict(setup.options), Options)
        self._http = calls.make_client(setup, headers={"Authorization": f"Key {setup.secret}"})
        self._cdn = watcher(setup, self._options.cdn_host)

    async def warm(self) -> None:
        """Check the models' names and inputs; what is wrong is named by its operation."""
        for operation, model in self._setup.models.items():
            wrong = check_template(model) if "/" in model.model.strip("/") else "model is no owner/app of fal"
            if wrong:
                raise ProviderFailure(FailureKind.UNSUPPORTED, f"{operation}: {wrong}", is_unsent=True)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Put the request into the queue, pictures inside."""
        model = model_for(self._setup.models, task.operation)
        pictures = enumerate(files_of(task), 1)
        given = [data_uri(picture) if wants_picture(model.input, n) else None for n, picture in pictures]
        body = render(model.input, {**task.parameters, **picture_values(given), "attempt": task.attempt})
        reply = await calls.order(
            self._http,
            "POST",
            f"/{model.model.strip('/')}",
            json=body,
            headers=self._wishes(task),
            params={"fal_webhook": task.hook_url} if task.hook_url else None,
            within_s=self._setup.timeout_s,
        )
        if not reply.is_ok:
            raise refused(reply, calls.ORDER_KINDS.get(reply.status))
        queued = calls.decoded(reply, _Queued, is_order=True)
        await reporter.accepted(self._handle(queued, task.operation, model))
        return Snapshot(progress=Progress.QUEUED, poll_after_s=0.5)

    async def poll(self, handle: Handle) -> Snapshot:
        """Ask for the status, and for the result as soon as there is one: fal keeps large ones for minutes only."""
        model = self._setup.models.get(handle.operation, Model())
        reply = await self._ask("GET", self._own(handle, "status"))
        if not reply.is_ok:
            raise refused(reply, believed=calls.OF_ORDER)  # the result's own errors stand in the result
        status = calls.decoded(reply, _Status)
        if status.status == "IN_QUEUE":
            return Snapshot(progress=Progress.QUEUED)
        if status.status != "COMPLETED":
            return Snapshot(progress=Progress.RUNNING, poll_after_s=0.5)
        model_s = max(0.0, (status.metrics and status.metrics.inference_time) or 0.0)
        cost_usd = cost_of(model_s, model.usd_per_s)
        outputs = await self._result(handle, model, status)
        return Snapshot(progress=Progress.SUCCEEDED, outputs=outputs, model_s=model_s, cost_usd=cost_usd)

    async def cancel(self, handle: Handle) -> bool:
        """Take the request out of the queue; one that runs already may go on for a while."""
        reply = await self._ask("PUT", self._own(handle, "cancel"))
        status = told_by(reply).status
        if not status and calls.kind_of(reply.status) is not FailureKind.LOST:
            raise refused(reply)
        return status in {"OK", "ALREADY_COMPLETED"}

    async def purge(self, handle: Handle) -> Purge:
        """Delete payloads and outputs, then ask for the result and for every output that fal named."""
        path = f"{self._options.platform_url}/models/requests/{quote(handle.id, safe='')}/payloads"
        reply = await self._ask("DELETE", path)
        if not reply.is_ok and calls.kind_of(reply.status) is not FailureKind.LOST:
            raise refused(reply)
        links = calls.decoded(reply, _Deleted).cdn_delete_results if reply.is_ok and reply.body else ()
        seen = [link for link in links if self._is_on_cdn(link.link)]
        if await self._has_result(handle) or any([await self._is_served(link.link) for link in seen]):
            return Purge(still_served=frozenset({Part.OUTPUT}))
        # Asked again after an answer that was lost, it knows nothing more, and names no output to look at.
        if not reply.is_ok or len(seen) < len(links) or any(link.exception is not None for link in links):
            return Purge(deleted=frozenset({Part.UPLOAD}))
        return Purge(deleted=frozenset({Part.UPLOAD, Part.OUTPUT}))

    async def healthy(self) -> None:
        """Ask for a request that nobody made: who may ask is told that it is not there."""
        for model in self._setup.models.values():
            reply = await self._ask("GET", f"{self._requests(model)}/{NO_REQUEST}/status")
            if not reply.is_ok and calls.kind_of(reply.status) not in {FailureKind.LOST, FailureKind.INVALID_INPUT}:
                raise refused(reply)
            return

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(self._http.aclose(), self._cdn.aclose())

    async def _result(self, handle: Handle, model: Model, status: _Status) -> tuple[Output, ...]:
        reply = await self._ask("GET", self._own(handle, "result"))
        if not reply.is_ok:
            raise refused(reply, hint=status.error_type or "", is_result=True)
        if status.error or status.error_type:
            raise ProviderFailure(
                KINDS.get(status.error_type or "", FailureKind.PROVIDER_ERROR), "completed_with_error"
            )
        found = _found(calls.decoded(reply, dict[str, Any]), model.output)
        return tuple([msgspec.structs.replace(one, url=await self._readable(one.url)) for one in found])

    async def _readable(self, url: str) -> str:
        """Return a link that can be read without the key."""
        if self._options.acl == "allow" or not self._is_on_cdn(url):
            return url
        path = f"{self._options.platform_url}/storage/files/sign"
        reply = await self._ask("POST", path, params={"url": url}, json={"expiration_seconds": SIGNED_S})
        if not reply.is_ok:
            raise calls.refused(reply, detail=f"sign_status_{reply.status}", believed=())
        return calls.decoded(reply, _Signed).signed_url

    async def _is_served(self, link: str) -> bool:
        """Whether it can be read at the CDN; raises where that was not seen: an answer cannot send us elsewhere."""
        try:
            readable = await self._readable(link)
        except ProviderFailure as failure:
            if failure.kind is FailureKind.LOST:
                return False
            raise
        if not self._is_on_cdn(readable):
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "output_host")
        return await is_served(self._cdn, readable)

    async def _has_result(self, handle: Handle) -> bool:
        reply = await self._ask("GET", self._own(handle, "result"))
        # The result of a refused input (422) repeats the input.
        if reply.is_ok or reply.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            return True
        if calls.kind_of(reply.status) in {FailureKind.LOST, FailureKind.INVALID_INPUT, FailureKind.UNSUPPORTED}:
            return False
        raise refused(reply)

    def _handle(self, queued: _Queued, operation: str, model: Model) -> Handle:
        """Keep the addresses that fal gave where they lead to the queue; ours go nowhere else, whatever it says."""
        own = f"{self._requests(model)}/{quote(queued.request_id, safe='')}"
        told = {"status": queued.status_url, "result": queued.response_url, "cancel": queued.cancel_url}
        made = {"status": f"{own}/status", "result": own, "cancel": f"{own}/cancel"}
        data = {name: url if calls.same_host(url, self._setup.base_url) else made[name] for name, url in told.items()}
        return Handle(id=queued.request_id, operation=operation, data=data)

    def _own(self, handle: Handle, name: str) -> str:
        url = handle.data.get(name, "")
        if not calls.same_host(url, self._setup.base_url):
            raise ProviderFailure(FailureKind.LOST, "address")
        return url

    def _requests(self, model: Model) -> str:
        parts = model.model.strip("/").split("/")
        app = "/".join(parts[: 3 if parts[0] in _NAMESPACES else 2])
        return f"{self._setup.base_url.rstrip('/')}/{app}/requests"

    def _is_on_cdn(self, url: str) -> bool:
        try:
            host, cdn = urlsplit(url).hostname or "", self._options.cdn_host
        except ValueError:
            return False  # no URL at all, which whoever fetches it will say
        return host == cdn or host.endswith(f".{cdn}")

    def _wishes(self, task: Task) -> dict[str, str]:
        start_s = str(max(1, int(task.deadline_s)))
        acl: dict[str, Any] = {"default": self._options.acl, "rules": []}
        lifecycle = {"expiration_duration_seconds": KEPT_S, "initial_acl": acl}
        return {
            "X-Fal-Store-IO": "0",
            "X-Fal-Object-Lifecycle-Preference": msgspec.json.encode(lifecycle).decode(),
            "X-Fal-Request-Start-Timeout": start_s,
            "X-Fal-Request-Timeout": start_s,  # its older name
            "X-Fal-No-Retry": "1",  # the route's loop is the only one
        }

    async def _ask(self, method: str, url: str, **content: Any) -> Reply:
        return await calls.ask(self._http, method, url, within_s=self._setup.timeout_s, **content)


def _found(document: Mapping[str, Any], pointer: str) -> tuple[Output, ...]:
    """Find the outputs: where the pointer says, else under the usual names."""
    flags = document.get("has_nsfw_concepts")
    if any(cast("list[object]", flags)) if isinstance(flags, list) else flags:
        raise ProviderFailure(FailureKind.CONTENT_REJECTED, "has_nsfw_concepts")
    usual = next((f"/{name}" for name in ("images", "image", "video") if document.get(name)), "/images")
    found = pointed(document, pointer or usual)
    many = cast("list[Any]", found) if isinstance(found, list) else [found]
    outputs = [output for one in many for output in _outputs_of(one)]
    if not outputs:
        raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_output")
    return tuple(outputs)


def _outputs_of(value: Any) -> tuple[Output, ...]:
    if not isinstance(value, dict):
        return outputs_of(value)
    file = cast("dict[str, Any]", value)
    return outputs_of(file.get("url"), media_type=str(file.get("content_type") or ""))
