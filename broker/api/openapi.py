"""The OpenAPI document: schemas from the structs that clients see, paths from tables; tests compare it with the app."""

from functools import cache
from typing import Any, cast

import msgspec
from litestar import Response, get

from broker.api.consents import ConsentsView, NewConsentsView
from broker.api.health import LiveView, ReadyView
from broker.api.notices import NoticePairView
from broker.api.openapi_gallery import GALLERY_VIEWS, IMAGE, gallery_paths
from broker.api.openapi_mine import MINE_VIEWS, mine_paths
from broker.api.openapi_parts import (
    ACCEPT_LANGUAGE,
    BINARY,
    CURSOR,
    DEADLINES,
    HOOK_TOKEN,
    IDEMPOTENCY_KEY,
    IF_NONE_MATCH,
    JOB_ID,
    LANGUAGE,
    LAST_EVENT_ID,
    LIMIT,
    NOTICE_VERSION,
    PREFER,
    REQUEST_ID,
    RIGHT,
    TARGETS,
    Json,
    answer,
    body,
    operation,
    problems,
    put_parameters,
    raw,
    ref,
)
from broker.api.operations import OperationListView
from broker.api.privacy import ReceiptKeysView
from broker.api.problems import Problem
from broker.api.rights import (
    ErasedView,
    MeView,
    NewRestrictionView,
    ObjectionView,
    RequestListView,
    RequestView,
    RestrictionView,
)
from broker.api.telemetry import AppReportView
from broker.api.users import UserView
from broker.api.views import JobPageView, JobView, NewJobView, VerdictView

SHOWN = [
    *(UserView, NewJobView, JobView, JobPageView, VerdictView, OperationListView, ReceiptKeysView),
    *(NoticePairView, ConsentsView, NewConsentsView),
    *(*GALLERY_VIEWS, *MINE_VIEWS),
    AppReportView,
    *(MeView, ErasedView, RequestView, RequestListView, RestrictionView, NewRestrictionView, ObjectionView),
    *(LiveView, ReadyView, Problem),
]

_FORM: Json = {
    "type": "object",
    "properties": {"job": {"$ref": ref("NewJobView")}, "picture": {"type": "array", "items": BINARY}},
    "required": ["job", "picture"],
}

_DESCRIPTION = (
    "An async job broker for AI image apps: no upload outlives its job. Every status and code is an open set; what is "
    "absent is absent, never null; times are UTC in whole seconds; errors are RFC 9457 problem details. Where a bearer "
    "token is asked for, a browser may have the cookie of a session instead: POST /v1/me/session."
)


@get("/openapi.json")
async def get_openapi() -> Response[bytes]:
    """Serve the document."""
    return Response(encoded_document(), media_type="application/json", headers={"Cache-Control": "public, max-age=300"})


@cache
def encoded_document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(document())


def document() -> Json:
    """Build the document: OpenAPI 3.0.3, in the subset that code generators of phones digest."""
    return {
        "openapi": "3.0.3",
        "info": {"title": "Lethe", "version": "1", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "paths": {
            **_users(),
            **_jobs(),
            **gallery_paths(),
            **mine_paths(),
            **_consents(),
            **_rights(),
            **_hooks(),
            **_telemetry(),
            **_about(),
        },
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def schemas() -> Json:
    """Describe the structs that clients see, by name."""
    _, components = msgspec.json.schema_components(SHOWN, ref_template="#/components/schemas/{name}")
    return {_public(name): _cleaned(schema) for name, schema in components.items()}


def _users() -> Json:
    created = answer("The user; the token is shown this once.", UserView)
    return {
        "/v1/users": {
            "post": operation(
                "createUser", "Make an anonymous user", {"201": created, **problems(429, 503)}, public=True
            )
        }
    }


def _jobs() -> Json:
    headers = ("ETag", "Retry-After")
    job = answer("The job.", JobView, headers=headers)
    verdict = answer("What was done.", VerdictView)
    one = operation("getJob", "Show a job, or wait for it", {"200": job, "304": _empty("Not changed.")})
    one["parameters"] = [JOB_ID, PREFER, IF_NONE_MATCH]
    page = answer("Jobs, newest first.", JobPageView)
    one["responses"] |= problems(401, 404, 503)
    return {
        "/v1/jobs": {
            "get": operation("listJobs", "List jobs", {"200": page, **problems(400, 401, 422, 503)}, [LIMIT, CURSOR]),
            "post": _taking(
                "postJob",
                "Send what to do, with several pictures or none",
                [IDEMPOTENCY_KEY, *DEADLINES, *TARGETS],
                {"application/json": {"$ref": ref("NewJobView")}, "multipart/form-data": _FORM},
            ),
        },
        "/v1/jobs/{job_id}": {
            "put": _taking(
                "putJob", "Send a picture and what to do with it", [JOB_ID, *put_parameters()], {IMAGE: BINARY}
            ),
            "get": one,
            "delete": operation(
                "deleteJob",
                "Cancel a job, destroy its outputs",
                {"200": verdict, "202": verdict, **problems(401, 404, 503)},
                [JOB_ID],
            ),
        },
        "/v1/jobs/{job_id}/events": {"get": _events()},
        "/v1/jobs/{job_id}/receipt": {"get": _receipt()},
    }


def _taking(name: str, summary: str, parameters: list[Json], bodies: Json) -> Json:
    headers = ("ETag", "Retry-After")
    job = answer("The job.", JobView, headers=headers)
    taken = answer("The job, which goes on.", JobView, headers=(*headers, "Location"))
    described = operation(name, summary, {"200": job, "202": taken}, parameters)
    content = {media_type: {"schema": schema} for media_type, schema in bodies.items()}
    described["requestBody"] = {"required": True, "content": content}
    described["responses"] |= problems(400, 401, 402, 403, 409, 413, 415, 422, 429, 503)
    return described


def _events() -> Json:
    # No type: a generator reads text as text, and a schema would be one of each event.
    stream = raw("Server-sent events: `job` with the job as data, then `end`.", "text/event-stream", {})
    responses = {"200": stream, "204": _empty("The end was seen."), **problems(401, 404, 503)}
    return operation("getJobEvents", "Watch a job", responses, [JOB_ID, LAST_EVENT_ID])


def _receipt() -> Json:
    note = raw("A C2SP signed note.", "text/plain", {"type": "string"})
    return operation("getReceipt", "Get the signed receipt", {"200": note, **problems(401, 404, 409, 503)}, [JOB_ID])


def _rights() -> Json:
    erased = answer("All that is ours is gone; providers may still have copies.", ErasedView, headers=("Retry-After",))
    exported = raw("The document; docs/export.schema.json describes it.", "application/json", {"type": "object"})
    changed = operation(
        "putRestriction",
        "Restrict processing, or lift it",
        {"200": answer("How it stands.", RestrictionView), **problems(400, 401, 409, 413, 415, 422, 429, 503)},
    )
    changed["requestBody"] = body(NewRestrictionView)
    counted = {"200": answer("Everything, counted.", MeView), **problems(401, 503)}
    erasing = {"200": erased, "202": {**erased, "description": "It goes on."}, **problems(401, 503)}
    objected = {"200": answer("What was withdrawn.", ObjectionView), **problems(401, 409, 429, 503)}
    listed = {"200": answer("The requests.", RequestListView), **problems(401, 503)}
    one = {"200": answer("How it stands.", RequestView), **problems(404, 503)}
    return {
        "/v1/me": {
            "get": operation("getMe", "Show what is held about you", counted),
            "delete": operation("deleteMe", "Erase the user and everything held", erasing),
        },
        "/v1/me/export": {
            "get": operation(
                "getExport",
                "Get everything held about you",
                {"200": exported, **problems(401, 409, 422, 429, 503)},
                [RIGHT],
            )
        },
        "/v1/me/restriction": {"put": changed},
        "/v1/me/objections": {"post": operation("postObjection", "Object to whatever is optional", objected)},
        "/v1/me/requests": {"get": operation("listRequests", "List your requests", listed)},
        "/v1/privacy/requests/{request_id}": {
            "get": operation("getRequest", "Show how a request stands", one, [REQUEST_ID], public=True)
        },
    }


def _consents() -> Json:
    shown = answer("What is asked, what is missing, and every record.", ConsentsView)
    giving = operation("putConsents", "Give and withdraw consent", {"200": shown})
    giving["requestBody"] = body(NewConsentsView)
    giving["responses"] |= problems(400, 401, 403, 413, 415, 422, 429, 503)
    seeing = operation("getConsents", "What the user agrees to", {"200": shown, **problems(401, 503)})
    return {"/v1/me/consents": {"get": seeing, "put": giving}}


def _telemetry() -> Json:
    responses = {"204": _empty("Counted."), **problems(400, 413, 415, 422, 503)}
    report = operation("reportTelemetry", "Report a crash or how long something took", responses, public=True)
    report["requestBody"] = body(AppReportView)
    return {"/v1/telemetry": {"post": report}}


def _hooks() -> Json:
    taken = _empty("Taken, whether the token is known or not; the body is not looked at.")
    responses = {"204": taken, **problems(404, 503)}
    hint = operation("hintProviderNews", "Say that a provider has news", responses, [HOOK_TOKEN], public=True)
    return {"/v1/hooks/{token}": {"post": hint}}


def _about() -> Json:
    offered = answer("The operations that can run right now.", OperationListView)
    keys = answer("Current and former keys.", ReceiptKeysView)
    posture = raw("A C2SP signed note.", "text/plain", {"type": "string"})
    live, ready = answer("It lives.", LiveView), answer("Every part answers.", ReadyView)
    document_answer = raw("This document.", "application/json", {"type": "object"})
    public = {
        "/v1/operations": ("listOperations", "List operations", {"200": offered, **problems(503)}),
        "/v1/privacy/keys": ("listReceiptKeys", "List the keys that verify receipts", {"200": keys, **problems(503)}),
        "/v1/privacy/posture": ("getPosture", "What is true of this deployment", {"200": posture, **problems(503)}),
        "/health/live": ("getLive", "Is the process alive?", {"200": live}),
        "/health/ready": ("getReady", "Can work be taken in?", {"200": ready, **problems(503)}),
        "/openapi.json": ("getOpenapi", "This document", {"200": document_answer}),
    }
    paths: Json = {path: {"get": operation(*what, public=True)} for path, what in public.items()}
    return {**paths, "/v1/privacy/notice": {"get": _notice()}}


def _notice() -> Json:
    shown = answer("The notice in force, and the next.", NoticePairView, headers=("ETag", "Content-Language"))
    responses = {"200": shown, "304": _empty("Not changed."), **problems(422, 503)}
    parameters = [LANGUAGE, NOTICE_VERSION, ACCEPT_LANGUAGE, IF_NONE_MATCH]
    return operation("getNotice", "Read the privacy notice", responses, parameters, public=True)


def _empty(description: str) -> Json:
    return {"description": description}


def _public(name: str) -> str:
    return name.removesuffix("View")


def _cleaned(schema: Any) -> Any:
    """Take away what trips generators: titles, and the suffix of our own names."""
    if isinstance(schema, dict):
        items = cast("Json", schema)
        if "contentEncoding" in items:  # what 3.1 calls it
            return {"type": "string", "format": "byte"}
        return {key: ref(str(v)) if key == "$ref" else _cleaned(v) for key, v in items.items() if key != "title"}
    return schema
