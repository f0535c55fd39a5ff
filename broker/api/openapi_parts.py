"""The pieces that the OpenAPI document is put together from."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from broker.operations import OPERATIONS
from broker.parameters import Text

Json = dict[str, Any]

BINARY: Json = {"type": "string", "format": "binary"}
PROBLEM_MEDIA_TYPE = "application/problem+json"


def ref(name: str) -> str:
    """Return the address of a schema, by the name that clients see."""
    return "#/components/schemas/" + name.rpartition("/")[2].removesuffix("View")


def answer(description: str, shown: type[object], *, headers: Sequence[str] = ()) -> Json:
    """Describe a JSON answer."""
    return raw(description, "application/json", {"$ref": ref(shown.__name__)}, headers=headers)


def raw(description: str, media_type: str, schema: Json, *, headers: Sequence[str] = ()) -> Json:
    """Describe an answer of any kind."""
    described: Json = {"description": description, "content": {media_type: {"schema": schema}}}
    if headers:
        described["headers"] = {name: {"schema": {"type": "string"}} for name in headers}
    return described


def problems(*statuses: int) -> Json:
    """Describe the errors that an operation may answer with; any other may come from what stands in between."""
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": ref("Problem")}}}
    described = {str(status): {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
    return {**described, "default": {"description": "Any other problem", "content": content}}


def operation(
    name: str, summary: str, responses: Json, parameters: Sequence[Json] = (), *, public: bool = False
) -> Json:
    """Describe one operation."""
    described: Json = {"operationId": name, "summary": summary, "responses": responses}
    if parameters:
        described["parameters"] = list(parameters)
    if not public:
        described["security"] = [{"bearer": []}]
    return described


def body(shown: type[object]) -> Json:
    """Describe a body of JSON."""
    return {"required": True, "content": {"application/json": {"schema": {"$ref": ref(shown.__name__)}}}}


def put_parameters() -> list[Json]:
    """Describe what a PUT takes beside its body: every parameter of every operation that may stand in a URL."""
    found: dict[str, Json] = {}
    for known in OPERATIONS.values():
        for name, parameter in known.parameters.items():
            if not isinstance(parameter, Text):
                kind = parameter.schema()["type"]
                found[name] = _parameter("query", name, {"type": kind}, description=parameter.description)
    required = _parameter("query", "operation", {"type": "string"}, required=True, description="GET /v1/operations.")
    return [required, *found.values(), _TEXTS, *DEADLINES, *TARGETS]


def _parameter(place: str, name: str, schema: Json, *, description: str, required: bool = False) -> Json:
    return {"name": name, "in": place, "required": required, "schema": schema, "description": description}


_TEXT: Json = {"type": "string"}
_UUID: Json = {"type": "string", "format": "uuid"}
_NUMBER: Json = {"type": "number"}

_TEXTS = _parameter("header", "Lethe-Parameters", _TEXT, description="base64url of a JSON object; for text parameters.")
DEADLINES = [
    _parameter("header", "Lethe-Start-Within", _NUMBER, description="Seconds; can only shorten the deadline."),
    _parameter("header", "Lethe-Finish-Within", _NUMBER, description="Seconds; can only shorten the deadline."),
]
TARGETS = [
    _parameter(
        "header", "Lethe-Notify-Webhook", _TEXT, description="An https URL that is told when the job has ended."
    ),
    _parameter(
        "header", "Lethe-Notify-Push", _TEXT, description="`fcm:` or `apns:`, and the token of the phone to be told."
    ),
]
IDEMPOTENCY_KEY = _parameter(
    "header", "Idempotency-Key", _TEXT, required=True, description="1 to 255 characters; the same again: the same job."
)
JOB_ID = _parameter("path", "job_id", _UUID, required=True, description="A UUID that the client made.")
OUTPUT_N = _parameter("path", "n", {"type": "integer"}, required=True, description="0 is the first output.")
REQUEST_ID = _parameter("path", "request_id", _UUID, required=True, description="As the request was answered with.")
RIGHT = _parameter("query", "right", _TEXT, description="access, or portability: what the request is recorded as.")
HOOK_TOKEN = _parameter("path", "token", _TEXT, required=True, description="As a provider was given it.")
PREFER = _parameter("header", "Prefer", _TEXT, description="wait=25: answer when the job has changed, 25 s at most.")
IF_NONE_MATCH = _parameter("header", "If-None-Match", _TEXT, description="The ETag of the version that is known.")
LAST_EVENT_ID = _parameter("header", "Last-Event-ID", _TEXT, description="The last event that was seen.")
LANGUAGE = _parameter("query", "lang", _TEXT, description="One of `languages`, instead of Accept-Language.")
ACCEPT_LANGUAGE = _parameter("header", "Accept-Language", _TEXT, description="What the reader understands.")
NOTICE_VERSION = _parameter("query", "version", _TEXT, description="A version that no longer holds, to read it again.")
DEVICE_ID = _parameter("path", "device_id", _UUID, required=True, description="As POST /v1/me/devices answered.")
DEVICE = _parameter("query", "device", _UUID, description="A device: with what opens each output on it.")
LIMIT = _parameter("query", "limit", {"type": "integer"}, description="How many, 1 to 100.")
CURSOR = _parameter("query", "cursor", _TEXT, description="`next` of the page before.")
