"""What apps report: counted at once under words of a closed list, and nobody's in particular."""

from typing import Any

import pytest

from tests.api_client import Api


async def test_a_report_is_counted_and_gone(api: Api) -> None:
    """m2r-11, imaginex-5: no token is needed; the operator's figures have it, and no row, log line or key does."""
    body = {"event": "crash", "platform": "ios"}
    for report in (body, body, {"event": "upload", "platform": "android", "duration_ms": 1_200}):
        assert (await api.http.post("/v1/telemetry", json=report)).status_code == 204
    figures = (await api.http.get(f"{api.operator_url}/metrics")).text
    assert 'lethe_app_events_total{event="crash",platform="ios"} 2.0' in figures
    assert 'lethe_app_seconds_sum{event="upload",platform="android"} 1.2' in figures


@pytest.mark.parametrize(
    "report",
    [
        {"event": "crash"},
        {"event": "zebra7", "platform": "ios"},
        {"event": "crash", "platform": "ios", "user_id": "usr_zebra7"},
        {"event": "crash", "platform": "ios", "duration_ms": -1},
        {"event": "crash", "platform": "ios", "trace": "zebra7"},
        [1],
    ],
)
async def test_what_is_not_on_the_list_is_refused(api: Api, report: Any) -> None:
    """No other word, no other field: 422, and nothing of it is repeated or counted."""
    answer = await api.http.post("/v1/telemetry", json=report)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    figures = (await api.http.get(f"{api.operator_url}/metrics")).text
    assert "zebra7" not in answer.text + figures
    assert "lethe_app_events_total{" not in figures


async def test_a_report_is_small_json(api: Api) -> None:
    """Another kind of body is 415, a large one 413."""
    assert (await api.http.post("/v1/telemetry", content=b"x=1")).status_code == 415
    no_text = await api.http.post(
        "/v1/telemetry", content=b'{"event":"\xff","platform":"ios"}', headers={"content-type": "application/json"}
    )
    assert (no_text.status_code, no_text.json()["code"]) == (422, "invalid_parameter")
    large = {"event": "crash", "platform": "ios", "trace": "x" * 20_000}
    assert (await api.http.post("/v1/telemetry", json=large)).status_code == 413
