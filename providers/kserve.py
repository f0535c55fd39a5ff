"""
The Open Inference Protocol v2: Triton, KServe, MLServer and others on machines of one's own; one call, one answer.

Every key of a model's `input` is an input tensor; "$image" is the encoded file. With the binary extension (Triton,
KServe) it travels as it is, as one BYTES element or, where `datatype = "UINT8"` says so, as a row of bytes. Without it
(`binary = false`: MLServer) it is a base64 string. An answer may come in either form; `output` points to one of its
tensors, "/" and the name, and may be left out where there is one only.

    [provider.rack]
    adapter = "kserve"
    base_url = "http://gpu-1:8000"
    exposure = "local"

    [provider.rack.operation.upscale]
    model = "upscaler"
    input = { image = "$image", scale = "$scale:2" }
    output = "/picture"
    options = { inputs = { image = { shape = [1, 1] }, scale = { shape = [1, 1], datatype = "INT32" } } }

KServe's own Python server (0.21) cannot read pictures as BYTES, and then writes them into its log: name UINT8 there.
Nothing is kept by the protocol; whether a server logs or traces what it is sent is its operator's to say.
"""

from typing import Any, ClassVar, cast
from urllib.parse import quote

import msgspec

from providers import calls
from providers.base import Exposure, Model, Output, Progress, Reporter, Setup, Snapshot, Takes, Task, Terms
from providers.calls import Reply
from providers.failures import FailureKind, ProviderFailure
from providers.inline import Inline
from providers.pictures import files_of, read
from providers.templates import check_template, model_for, picture_values, render, steps
from providers.tensors import DATATYPES, LENGTH, Tensor, described, pictures_in, pictures_tensor, value_tensor

_KINDS = {**calls.ORDER_KINDS, 501: FailureKind.UNSUPPORTED}
_UNTOLD = frozenset({FailureKind.AUTH, FailureKind.UNCERTAIN})  # a gateway's "timeout" is not that of a queue
_WORDS: tuple[tuple[FailureKind, tuple[str, ...]], ...] = (
    (FailureKind.OVERLOADED, ("timeout", "timed out", "queue", "out of memory")),
    # What the configuration says of the model, and the model is not.
    (FailureKind.UNSUPPORTED, ("unknown model", "unexpected inference", "unexpected shape", "data-type is")),
)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[provider.NAME.options]`: the virtual host of a service behind a gateway."""

    host: str = ""


class ModelOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[provider.NAME.operation.OPERATION.options]`: how the model wants its tensors."""

    version: str = ""
    binary: bool = True
    inputs: dict[str, Tensor] = {}
    parameters: dict[str, str | int | bool] = {}
    """Of the request as a whole, such as Triton's `priority`, or `timeout` in microseconds."""


class KServe(Inline):
    """The adapter to a server that speaks the Open Inference Protocol."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"upscale", "restyle", "edit", "generate", "remove_background", "photoshoot"}),
        exposure=Exposure.LOCAL,
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        max_pictures=20,
        max_picture_bytes=50_000_000,
    )

    def __init__(self, setup: Setup) -> None:
        try:
            options = msgspec.convert(dict(setup.options), Options)
            self._options = {name: msgspec.convert(model.options, ModelOptions) for name, model in setup.models.items()}
        except msgspec.ValidationError as exc:
            raise ProviderFailure(FailureKind.UNSUPPORTED, f"options: {exc}", is_unsent=True) from None
        self._models = setup.models
        headers = {"Authorization": f"Bearer {setup.secret}" if setup.secret else "", "Host": options.host}
        self._http = calls.make_client(setup, headers={name: value for name, value in headers.items() if value})

    async def warm(self) -> None:
        """Check the models' inputs and what is said of their tensors."""
        for operation, model in self._models.items():
            if wrong := check_template(model) or _fault(model, self._options[operation]):
                raise ProviderFailure(FailureKind.UNSUPPORTED, f"{operation}: {wrong}", is_unsent=True)

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Have it inferred, and wait."""
        del reporter
        model = model_for(self._models, task.operation)
        options = self._options[task.operation]
        content = _content(task, model, options)
        path = f"{_path(model, options)}/infer"
        reply = await calls.order(self._http, "POST", path, within_s=task.deadline_s, **content)
        if not reply.is_ok:
            raise _refusal(reply)
        name = _output_name(model)
        pictures = pictures_in(reply.body, reply.headers.get(LENGTH), name=name, attempt=task.attempt)
        return Snapshot(progress=Progress.SUCCEEDED, outputs=tuple(Output(data=picture) for picture in pictures))

    async def healthy(self) -> None:
        """Ask whether the server is ready, and every model that is configured."""
        paths = {f"{_path(model, self._options[name])}/ready" for name, model in self._models.items()}
        for path in ["/v2/health/ready", *sorted(paths)]:
            reply = await calls.ask(self._http, "GET", path)
            if not reply.is_ok:
                kind = calls.kind_of(reply.status)
                raise calls.refused(reply, kind if kind is FailureKind.AUTH else FailureKind.OVERLOADED)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _path(model: Model, options: ModelOptions) -> str:
    version = f"/versions/{quote(options.version, safe='')}" if options.version else ""
    return f"/v2/models/{quote(model.model, safe='')}{version}"


def _fault(model: Model, options: ModelOptions) -> str:
    if not model.model:
        return "model is missing"
    if strange := set(options.inputs) - set(model.input):
        return f"options.inputs: {min(strange)} is no input"
    for name, tensor in options.inputs.items():
        if tensor.datatype and tensor.datatype not in DATATYPES:
            return f"{name}: datatype has to be one of {', '.join(sorted(DATATYPES))}"
        if any(size < 1 and size != -1 for size in tensor.shape) or tensor.shape.count(-1) > 1:
            return f"{name}: shape has to be of positive sizes, and one -1 at most"
    return ""


def _content(task: Task, model: Model, options: ModelOptions) -> dict[str, Any]:
    """Make the body of a request: JSON, and behind it the pictures, in the order of their tensors."""
    try:
        pictures = [read(file) for file in files_of(task)]
        values = {**task.parameters, **picture_values(cast("list[Any]", pictures)), "attempt": task.attempt}
        tensors = [_tensor(name, value, options) for name, value in render(model.input, values).items()]
    except ProviderFailure as failure:
        failure.is_unsent = True
        raise
    head = {"id": task.attempt, "inputs": [tensor for tensor, _ in tensors], **_wanted(model, options)}
    encoded = msgspec.json.encode(head)
    # Pictures are compressed already.
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if options.binary:
        headers |= {"Content-Type": "application/octet-stream", LENGTH: str(len(encoded))}
    return {"content": b"".join([encoded, *(raw for _, raw in tensors)]), "headers": headers}


def _tensor(name: str, value: Any, options: ModelOptions) -> tuple[dict[str, Any], bytes]:
    tensor = options.inputs.get(name, Tensor())
    many = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not many or not all(isinstance(one, bytes) for one in many):
        return value_tensor(name, value, tensor), b""
    pictures = cast("list[bytes]", many)
    if options.binary:
        head, raw = pictures_tensor(name, pictures, tensor)
        return {**head, "parameters": {**head.get("parameters", {}), "binary_data_size": len(raw)}}, raw
    # msgspec writes bytes as base64.
    return {**described(name, len(pictures), "BYTES", tensor), "data": pictures}, b""


def _wanted(model: Model, options: ModelOptions) -> dict[str, Any]:
    binary = {"binary_data_output": True} if options.binary else {}
    parameters: dict[str, Any] = {**options.parameters, **binary}
    name = _output_name(model)
    output = {"name": name, "parameters": {"binary_data": True}} if options.binary else {"name": name}
    return {
        **({"parameters": parameters} if parameters else {}),
        **({"outputs": [output]} if name else {}),
    }


def _output_name(model: Model) -> str:
    return "/".join(steps(model.output))


def _refusal(reply: Reply) -> ProviderFailure:
    """Say what an error means; its text may quote what was sent, and goes no further."""
    text = reply.body[:4096].decode(errors="replace").casefold()
    told = next((kind for kind, words in _WORDS if any(word in text for word in words)), None)
    kind = _KINDS.get(reply.status) or calls.kind_of(reply.status)
    return calls.refused(reply, kind if kind in _UNTOLD else told or kind)
