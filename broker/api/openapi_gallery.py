"""The part of the OpenAPI document on galleries, devices and sealed outputs."""

from broker.api.devices import DeviceListView, DeviceView, MissingPageView, NewDeviceView
from broker.api.gallery import EmptiedView, GalleryPageView, OutputVerdictView
from broker.api.openapi_parts import (
    BINARY,
    CURSOR,
    DEVICE,
    DEVICE_ID,
    JOB_ID,
    LIMIT,
    OUTPUT_N,
    Json,
    answer,
    body,
    operation,
    problems,
    raw,
)
from broker.api.outputs import SEALED_TYPE
from broker.api.sealed import NewOutputKeyView, OutputKeysView

GALLERY_VIEWS: list[type[object]] = [
    *(GalleryPageView, OutputVerdictView, EmptiedView, NewDeviceView, DeviceView, DeviceListView, MissingPageView),
    *(NewOutputKeyView, OutputKeysView),
]
IMAGE = "image/*"


def gallery_paths() -> Json:
    """Describe the paths."""
    return {**_outputs(), **_keys(), **_devices()}


def _outputs() -> Json:
    page = answer("Outputs that can be fetched, newest first.", GalleryPageView)
    emptied = answer("How many.", EmptiedView)
    listed = {"200": page, **problems(400, 401, 404, 422, 503)}
    return {
        "/v1/jobs/{job_id}/outputs/{n}": {"get": _output(), "delete": _deleted_output()},
        "/v1/outputs": {
            "get": operation("listOutputs", "List outputs", listed, [LIMIT, CURSOR, DEVICE]),
            "delete": operation(
                "deleteOutputs", "Destroy every output", {"200": emptied, "202": emptied, **problems(401, 503)}
            ),
        },
    }


def _output() -> Json:
    responses = {
        "200": raw("The output.", IMAGE, BINARY, headers=("ETag", "Accept-Ranges")),
        "206": raw("The part that was asked for.", IMAGE, BINARY, headers=("ETag", "Content-Range")),
        **problems(401, 404, 409, 410, 416, 503),
    }
    for status in ("200", "206"):
        responses[status]["content"][SEALED_TYPE] = {"schema": BINARY}
    return operation("getOutput", "Get an output", responses, [JOB_ID, OUTPUT_N])


def _deleted_output() -> Json:
    done = answer("What became of it.", OutputVerdictView)
    responses = {"200": done, "202": done, **problems(401, 404, 409, 503)}
    return operation("deleteOutput", "Destroy an output: it is saved, or not wanted", responses, [JOB_ID, OUTPUT_N])


def _keys() -> Json:
    at = "/v1/jobs/{job_id}/outputs/{n}"
    keys = answer("What opens it, device by device.", OutputKeysView)
    put = operation(
        "putOutputKey",
        "Let one more device open an output",
        {"204": {"description": "It can."}, **problems(400, 401, 404, 409, 410, 413, 415, 422, 503)},
        [JOB_ID, OUTPUT_N, DEVICE_ID],
    )
    thumbnail = {
        "200": raw("The thumbnail, sealed.", SEALED_TYPE, BINARY, headers=("ETag", "Accept-Ranges")),
        "206": raw("The part that was asked for.", SEALED_TYPE, BINARY, headers=("ETag", "Content-Range")),
        **problems(401, 404, 409, 410, 416, 503),
    }
    refused = problems(401, 404, 409, 410, 503)
    listed = operation("listOutputKeys", "Get what opens an output", {"200": keys, **refused}, [JOB_ID, OUTPUT_N])
    return {
        f"{at}/keys": {"get": listed},
        f"{at}/keys/{{device_id}}": {"put": {**put, "requestBody": body(NewOutputKeyView)}},
        f"{at}/thumbnail": {"get": operation("getThumbnail", "Get a thumbnail", thumbnail, [JOB_ID, OUTPUT_N])},
    }


def _devices() -> Json:
    device, devices = answer("The device.", DeviceView), answer("The devices.", DeviceListView)
    missing = answer("What it cannot open yet, newest first.", MissingPageView)
    added = {"200": device, "201": device, **problems(400, 401, 409, 413, 415, 422, 503)}
    gone = {"204": {"description": "It is gone."}, **problems(401, 404, 503)}
    lacking = {"200": missing, **problems(400, 401, 404, 422, 503)}
    add = operation("addDevice", "Register a public key", added)
    return {
        "/v1/me/devices": {
            "post": {**add, "requestBody": body(NewDeviceView)},
            "get": operation("listDevices", "List devices", {"200": devices, **problems(401, 503)}),
        },
        "/v1/me/devices/{device_id}": {"delete": operation("deleteDevice", "Forget a device", gone, [DEVICE_ID])},
        "/v1/me/devices/{device_id}/missing": {
            "get": operation("listMissing", "List what a device cannot open yet", lacking, [DEVICE_ID, LIMIT, CURSOR])
        },
    }
