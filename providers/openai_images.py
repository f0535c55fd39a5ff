"""
The Images API of OpenAI, and of everything that speaks it (Together, DeepInfra, LocalAI, vLLM …): one call, one answer.

Without pictures JSON goes to images/generations; with pictures a form goes to images/edits. A model whose `input` names
pictures itself ("$image" in Together's image_url) gets them as data URIs in the JSON instead. An order lasts up to two
minutes and answers with the picture or not at all: a lost answer is UNCERTAIN. Nothing can be cancelled or deleted
over there, and OpenAI keeps what it was sent for up to 30 days.

    [provider.openai]
    adapter = "openai_images"
    secret = "env:OPENAI_API_KEY"
    exposure = "logged"

    [provider.openai.operation.edit]
    model = "gpt-image-2"
    input = { prompt = "$prompt", n = "$count:1", size = "auto", output_format = "jpeg" }
    max_outputs = 4
    usd_per_million_tokens = 32.0

`response_format` is only sent where `input` has it: OpenAI refuses it, others need "b64_json" to send no URL.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import msgspec

from providers import calls
from providers.base import Exposure, File, Model, Output, Progress, Reporter, Setup, Snapshot, Takes, Task, Terms
from providers.calls import Reply
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline
from providers.pictures import data_uri, file_name, files_of, read
from providers.templates import check_template, is_picture, names_in, outputs_of, picture_values, render

NEVER_SENT = frozenset({"user", "safety_identifier"})
"""Fields that identify who asked."""
_NOT_SPOKEN = {
    "stream": "answers come whole",
    "partial_images": "answers come whole",
    "mask": "masks are not supported",
}
_ORDER_S = 180.0
_FORGOTTEN_S = 30 * 24 * 3600

_CODES = {
    "moderation_blocked": FailureKind.CONTENT_REJECTED,
    "content_policy_violation": FailureKind.CONTENT_REJECTED,
    "insufficient_quota": FailureKind.PAYMENT,
    "billing_hard_limit_reached": FailureKind.PAYMENT,
    "billing_not_active": FailureKind.PAYMENT,
    "invalid_api_key": FailureKind.AUTH,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "model_not_found": FailureKind.UNSUPPORTED,
    "unknown_parameter": FailureKind.UNSUPPORTED,  # of the configuration's making: another provider may do
    "unsupported_parameter": FailureKind.UNSUPPORTED,
}
_REPEATED = frozenset(
    {FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.PROVIDER_ERROR, FailureKind.TIMEOUT}
)
_FINAL = frozenset({FailureKind.INVALID_INPUT, FailureKind.UNSUPPORTED})
_CODE = re.compile(r"[a-z0-9_.]{1,40}")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[provider.NAME.options]`: whose account pays, and how long an order may take."""

    organization: str = ""
    project: str = ""
    order_s: float = _ORDER_S


class _Usage(msgspec.Struct, frozen=True, kw_only=True):
    total_tokens: int = 0


class _Picture(msgspec.Struct, frozen=True, kw_only=True):
    b64_json: str | None = None
    url: str | None = None


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    data: list[_Picture] | None
    usage: _Usage | None = None
    output_format: str | None = None


class OpenAIImages(Inline):
    """The adapter to an Images API, whoever runs it."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"generate", "edit", "restyle", "photoshoot", "remove_background", "upscale"}),
        exposure=Exposure.LOGGED,
        retention_s=_FORGOTTEN_S,
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        max_pictures=16,
        max_picture_bytes=50_000_000,
        base_url="https://api.openai.com/v1",
        needs_secret=True,
        sends_pictures=True,
    )

    def __init__(self, setup: Setup) -> None:
        try:
            self._options = msgspec.convert(dict(setup.options), Options)
        except msgspec.ValidationError as exc:
            raise ProviderFailure(FailureKind.UNSUPPORTED, f"options: {exc}", is_unsent=True) from None
        self._models = setup.models
        self._http = calls.make_client(setup, headers=_headers(setup.secret, self._options))

    async def warm(self) -> None:
        """Refuse inputs that this adapter never sends."""
        for operation, model in self._models.items():
            if wrong := check_template(model) or _fault(model):
                raise ProviderFailure(FailureKind.UNSUPPORTED, f"{operation}: {wrong}", is_unsent=True)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Order, and wait for the picture."""
        del reporter
        model = self._models.get(task.operation)
        if model is None:
            raise ProviderFailure(FailureKind.UNSUPPORTED, "operation", is_unsent=True)
        path, content = _content(task, model)
        within_s = min(task.deadline_s, self._options.order_s)
        reply = await calls.order(self._http, "POST", path, within_s=within_s, **content)
        if not reply.is_ok:
            raise _refusal(reply)
        return _snapshot(calls.decoded(reply, _Answer, is_order=True), model)

    async def healthy(self) -> None:
        """List the models, which costs nothing; a server that has no such list is taken as well."""
        reply = await calls.ask(self._http, "GET", "models")
        if not reply.is_ok and reply.status not in {404, 405}:
            raise _refusal(reply)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _headers(secret: str, options: Options) -> dict[str, str]:
    given = {
        "Authorization": f"Bearer {secret}" if secret else "",
        "OpenAI-Organization": options.organization,
        "OpenAI-Project": options.project,
    }
    return {name: value for name, value in given.items() if value}


def _fault(model: Model) -> str:
    fields = set(model.input)
    if named := fields & NEVER_SENT:
        return f"{min(named)} identifies somebody, and is never sent"
    wrong = next((name for name in _NOT_SPOKEN if name in fields), "")
    return f"{wrong}: {_NOT_SPOKEN[wrong]}" if wrong else ""


def _content(task: Task, model: Model) -> tuple[str, dict[str, Any]]:
    """Make the path and the body of an order."""
    try:
        files = files_of(task)
        takes_uris = any(is_picture(name) for name in names_in(model.input))
        values = picture_values([data_uri(file) for file in files]) if takes_uris else {}
        fields = _fields(model, {**task.parameters, **values, "attempt": task.attempt})
        if takes_uris or not files:
            return "images/generations", {"json": fields}
        return "images/edits", {"data": {k: _as_text(v) for k, v in fields.items()}, "files": _parts(files)}
    except ProviderFailure as failure:
        failure.is_unsent = True
        raise


def _fields(model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    rendered: dict[str, Any] = render(model.input, values)
    fields = {"model": model.model, **rendered} if model.model else rendered
    return {name: value for name, value in fields.items() if name not in NEVER_SENT}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _parts(files: tuple[File, ...]) -> list[tuple[str, tuple[str, bytes, str]]]:
    name = "image" if len(files) == 1 else "image[]"
    return [(name, (file_name(file, n), read(file), file.media_type)) for n, file in enumerate(files, 1)]


def _snapshot(answer: _Answer, model: Model) -> Snapshot:
    cost_usd = None
    if answer.usage and model.usd_per_million_tokens is not None:
        cost_usd = calls.cost_of(answer.usage.total_tokens, model.usd_per_million_tokens / 1e6)
    try:
        return Snapshot(progress=Progress.SUCCEEDED, outputs=_outputs(answer), cost_usd=cost_usd)
    except ProviderFailure as failure:
        failure.cost_usd = cost_usd
        raise


def _outputs(answer: _Answer) -> tuple[Output, ...]:
    media_type = f"image/{answer.output_format}" if answer.output_format else ""
    return outputs_of([picture.b64_json or picture.url for picture in answer.data or []], media_type=media_type)


def _refusal(reply: Reply) -> ProviderFailure:
    """Say what an error means: its code first, then what the server says about repeating, then its status."""
    error = _error(reply)
    code = _word(error.get("code")) or _word(error.get("type"))
    if kind := _CODES.get(code):
        return calls.refused(reply, kind, detail=_staged(code, error.get("moderation_details")))
    kind = calls.ORDER_KINDS.get(reply.status) or calls.kind_of(reply.status)
    should_retry = reply.headers.get("x-should-retry")
    if should_retry == "true" and kind in _FINAL:
        kind = FailureKind.OVERLOADED
    elif should_retry == "false" and kind in _REPEATED:
        kind = FailureKind.UNSUPPORTED
    return calls.refused(reply, kind)


def _error(reply: Reply) -> dict[str, Any]:
    return _object(_object(reply.json()).get("error"))


def _staged(code: str, details: Any) -> str:
    stage = _word(_object(details).get("moderation_stage"))
    return f"{code}_{stage}" if stage in {"input", "output"} else code


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""
