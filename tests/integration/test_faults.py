"""Every fault that emulated providers have, through whole jobs: outcome, charge, orders, custody rows, receipt."""

from pathlib import Path
from typing import Any

import pytest

from broker.settings import Settings
from tests.contract.cases import CASES
from tests.emulators.case import FAULTS, Case
from tests.relay import sent
from tests.stage import End, rows, theatre

LATE_S = 0.3
UNKNOWN = rows("unknown")

EXPIRES = rows("expires_by")
REPLICATE = {
    "": End("succeeded", True, 1, EXPIRES, "expires"),
    "latency": End("succeeded", True, 1, EXPIRES, "expires"),
    "rate_limited": End("succeeded", True, 2, rows("expires_by", "expires_by"), "expires"),
    "overloaded": End("succeeded", True, 2, rows("expires_by", "expires_by"), "expires"),
    "server_error": End("succeeded", True, 2, rows("expires_by", "expires_by"), "expires"),
    "auth": End("provider_refused", False, 1, EXPIRES, "expires"),
    "payment": End("provider_refused", False, 1, EXPIRES, "expires"),
    "moderated": End("content_rejected", False, 1, EXPIRES, "expires"),
    "invalid": End("invalid_image", False, 1, EXPIRES, "expires"),
    "lost_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "malformed_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "gateway_timeout": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "no_such_model": End("unsupported", False, 1, EXPIRES, "expires"),
    "malformed_poll": End("succeeded", True, 1, EXPIRES, "expires"),
    "unknown_state": End("succeeded", True, 1, EXPIRES, "expires"),
    "failed": End("provider_error", False, 3, rows(*["expires_by"] * 3), "expires"),
    "canceled_there": End("provider_canceled", False, 1, EXPIRES, "expires"),
    "no_output": End("bad_output", False, 2, rows("expires_by", "expires_by"), "expires"),
    "forgotten": End("succeeded", True, 2, rows("expires_by", "expires_by"), "expires"),
}

# Payloads and files go when they are told to; requests stay in the account's log for their time.
LOGGED = "deleted_by_api deleted_by_api expires_by"
# Nobody was given an id that could be deleted.
REFUSED = rows("expires_by")
FAL = {
    "": End("succeeded", True, 1, rows(LOGGED), "expires"),
    "latency": End("succeeded", True, 1, rows(LOGGED), "expires"),
    "rate_limited": End("succeeded", True, 2, REFUSED + rows(LOGGED), "expires"),
    "overloaded": End("succeeded", True, 2, REFUSED + rows(LOGGED), "expires"),
    "server_error": End("succeeded", True, 2, REFUSED + rows(LOGGED), "expires"),
    "auth": End("provider_refused", False, 1, REFUSED, "expires"),
    "payment": End("provider_refused", False, 1, REFUSED, "expires"),
    "moderated": End("content_rejected", False, 1, rows(LOGGED), "expires"),
    "invalid": End("invalid_image", False, 1, rows(LOGGED), "expires"),
    "lost_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "malformed_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "gateway_timeout": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "no_such_model": End("unsupported", False, 1, REFUSED, "expires"),
    "malformed_poll": End("succeeded", True, 1, rows(LOGGED), "expires"),
    "unknown_state": End("succeeded", True, 1, rows(LOGGED), "expires"),
    "failed": End("provider_error", False, 3, rows(LOGGED, LOGGED, LOGGED), "expires"),
    "canceled_there": End("provider_canceled", False, 1, rows(LOGGED), "expires"),
    "no_output": End("bad_output", False, 2, rows(LOGGED, LOGGED), "expires"),
    "forgotten": End("succeeded", True, 2, rows(LOGGED, LOGGED), "expires"),
}

KEPT = rows("kept_by_terms")
OPENAI = {
    "": End("succeeded", True, 1, KEPT, "kept"),
    "latency": End("succeeded", True, 1, KEPT, "kept"),
    "rate_limited": End("succeeded", True, 2, KEPT + KEPT, "kept"),
    "overloaded": End("succeeded", True, 2, KEPT + KEPT, "kept"),
    "server_error": End("succeeded", True, 2, KEPT + KEPT, "kept"),
    "auth": End("provider_refused", False, 1, KEPT, "kept"),
    "payment": End("provider_refused", False, 1, KEPT, "kept"),
    "moderated": End("content_rejected", False, 1, KEPT, "kept"),
    "invalid": End("invalid_image", False, 1, KEPT, "kept"),
    "lost_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "malformed_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "gateway_timeout": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "no_such_model": End("unsupported", False, 1, KEPT, "kept"),
    "no_output": End("succeeded", True, 2, KEPT + KEPT, "kept"),
}

DELETED = rows("deleted_by_api")
HTTP = {
    "": End("succeeded", True, 1, DELETED, "deleted"),
    "latency": End("succeeded", True, 1, DELETED, "deleted"),
    "rate_limited": End("succeeded", True, 2, REFUSED + DELETED, "expires"),
    "overloaded": End("succeeded", True, 2, REFUSED + DELETED, "expires"),
    "server_error": End("succeeded", True, 2, REFUSED + DELETED, "expires"),
    "auth": End("provider_refused", False, 1, REFUSED, "expires"),
    "payment": End("provider_refused", False, 1, REFUSED, "expires"),
    "moderated": End("content_rejected", False, 1, REFUSED, "expires"),
    "invalid": End("invalid_image", False, 1, REFUSED, "expires"),
    "lost_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "malformed_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "gateway_timeout": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "no_such_model": End("unsupported", False, 1, REFUSED, "expires"),
    "malformed_poll": End("succeeded", True, 1, DELETED, "deleted"),
    "unknown_state": End("succeeded", True, 1, DELETED, "deleted"),
    "failed": End("succeeded", True, 2, DELETED + DELETED, "deleted"),
    "canceled_there": End("provider_canceled", False, 1, DELETED, "deleted"),
    "no_output": End("succeeded", True, 2, DELETED + DELETED, "deleted"),
    "forgotten": End("succeeded", True, 2, DELETED + DELETED, "deleted"),
}

# Its orders are under our id: one whose answer is lost is sent again, and is the same attempt.
COG = {
    "": End("succeeded", True, 1, EXPIRES, "expires"),
    "latency": End("succeeded", True, 1, EXPIRES, "expires"),
    "rate_limited": End("succeeded", True, 2, EXPIRES + EXPIRES, "expires"),
    "overloaded": End("succeeded", True, 2, EXPIRES + EXPIRES, "expires"),
    "server_error": End("succeeded", True, 2, EXPIRES + EXPIRES, "expires"),
    "auth": End("provider_refused", False, 1, EXPIRES, "expires"),
    "moderated": End("content_rejected", False, 1, EXPIRES, "expires"),
    "invalid": End("invalid_image", False, 1, EXPIRES, "expires"),
    "lost_order": End("succeeded", True, 2, EXPIRES, "expires"),
    "malformed_order": End("succeeded", True, 2, EXPIRES, "expires"),
    "gateway_timeout": End("succeeded", True, 2, EXPIRES, "expires"),
    "no_such_model": End("unsupported", False, 1, EXPIRES, "expires"),
    "unknown_state": End("provider_uncertain", False, 3, EXPIRES, "expires"),
    "failed": End("provider_error", False, 3, rows(*["expires_by"] * 3), "expires"),
    "canceled_there": End("provider_canceled", False, 1, EXPIRES, "expires"),
    "no_output": End("bad_output", False, 2, EXPIRES + EXPIRES, "expires"),
}

# A restart empties its temp folder and its history: what it saved by then, nobody can name.
RESTARTED = "deleted_by_api expires_by deleted_by_api"
COMFYUI = {
    "": End("succeeded", True, 1, DELETED, "deleted"),
    "latency": End("succeeded", True, 1, DELETED, "deleted"),
    "rate_limited": End("succeeded", True, 2, DELETED + DELETED, "deleted"),
    "overloaded": End("succeeded", True, 2, DELETED + DELETED, "deleted"),
    "server_error": End("succeeded", True, 2, DELETED + DELETED, "deleted"),
    "auth": End("provider_refused", False, 1, DELETED, "deleted"),
    "invalid": End("invalid_image", False, 1, DELETED, "deleted"),
    "lost_order": End("succeeded", True, 1, DELETED, "deleted"),
    "malformed_order": End("succeeded", True, 2, DELETED, "deleted"),
    "gateway_timeout": End("succeeded", True, 2, DELETED, "deleted"),
    "no_such_model": End("unsupported", False, 1, DELETED, "deleted"),
    "malformed_poll": End("succeeded", True, 1, DELETED, "deleted"),
    "unknown_state": End("succeeded", True, 1, DELETED, "deleted"),
    "failed": End("provider_error", False, 3, rows(*["deleted_by_api"] * 3), "deleted"),
    "canceled_there": End("provider_canceled", False, 1, DELETED, "deleted"),
    "no_output": End("bad_output", False, 2, DELETED + DELETED, "deleted"),
    "forgotten": End("succeeded", True, 2, rows(RESTARTED, "deleted_by_api"), "expires"),
}

KSERVE = {
    "": End("succeeded", True, 1, EXPIRES, "expires"),
    "latency": End("succeeded", True, 1, EXPIRES, "expires"),
    "rate_limited": End("succeeded", True, 2, EXPIRES + EXPIRES, "expires"),
    "overloaded": End("succeeded", True, 2, EXPIRES + EXPIRES, "expires"),
    "server_error": End("succeeded", True, 2, EXPIRES + EXPIRES, "expires"),
    "auth": End("provider_refused", False, 1, EXPIRES, "expires"),
    "invalid": End("invalid_image", False, 1, EXPIRES, "expires"),
    "lost_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "malformed_order": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "gateway_timeout": End("provider_uncertain", False, 1, UNKNOWN, "unknown"),
    "no_such_model": End("unsupported", False, 1, EXPIRES, "expires"),
    "no_output": End("succeeded", True, 2, EXPIRES + EXPIRES, "expires"),
}

EXPECTED = {
    "replicate": REPLICATE,
    "fal": FAL,
    "openai_images": OPENAI,
    "http": HTTP,
    "cog": COG,
    "comfyui": COMFYUI,
    "kserve": KSERVE,
}


def happen(case: Case, emulator: Any, fault: str) -> bool:
    """Let a fault happen, or nothing but latency, or nothing; False where the provider has no such fault."""
    if fault == "latency":
        emulator.latency_s = LATE_S
    return fault in {"", "latency"} or case.script(emulator, fault)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_has_its_outcome_its_charge_its_orders_and_its_words(
    case: Case, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One outcome, a charge for a success alone, as many orders as allowed, rows and words that say what is known."""
    found: dict[str, End] = {}
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        for fault in ("", "latency", *FAULTS):
            if happen(case, at.stage.renew(), fault):
                found[fault] = await at.end(await sent(at.services))

    assert found == EXPECTED[case.name]
    assert all(end.is_charged == (end.outcome == "succeeded") for end in found.values())
