"""Copies at every provider that can be told to delete or to stop: gone already, served all the same, ended too soon."""

import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from broker.jobs import Job
from broker.settings import Settings
from tests.contract.cases import CASES
from tests.emulators.base import LOST_AFTER_WORK, Answer, Scripted
from tests.emulators.case import Case
from tests.images_corpus import saved
from tests.lifecycle import eventually, reread, run_sql
from tests.relay import receipt, sent
from tests.stage import ORDERS, End, Theatre, rows, theatre

GONE = Scripted(answer=Answer(status=404), is_done_first=True)
LOGGED = "deleted_by_api deleted_by_api expires_by"
UPLOADED = "deleted_by_api expires_by expires_by"
EXPIRES, DELETED, UNKNOWN = rows("expires_by"), rows("deleted_by_api"), rows("unknown")

DELETES = {
    "replicate": {
        "404": End("succeeded", True, 1, rows(UPLOADED), "expires"),
        "still served": End("succeeded", True, 1, rows("unknown expires_by expires_by"), "unknown"),
    },
    "fal": {
        "404": End("succeeded", True, 1, rows(UPLOADED), "expires"),  # it names no output that could be looked for
        "still served": End("succeeded", True, 1, rows("expires_by unknown expires_by"), "unknown"),
        "result still served": End("succeeded", True, 1, rows("expires_by unknown expires_by"), "unknown"),
    },
    "http": {
        "404": End("succeeded", True, 1, DELETED, "deleted"),
        "still served": End("succeeded", True, 1, UNKNOWN, "unknown"),
    },
    "comfyui": {
        "404": End("succeeded", True, 1, DELETED, "deleted"),
        "still served": End("succeeded", True, 1, UNKNOWN, "unknown"),
        "record still served": End("succeeded", True, 1, rows("deleted_by_api deleted_by_api unknown"), "unknown"),
    },
}
"""How a job ends whose copies were deleted with this answer; the alarm counts what is still served."""
ROUTES = {"comfyui": "length"}
"""What emulators call the route that says whether there is something to delete; the others, `delete`."""
STICKY = {
    ("replicate", "still served"): "is_keeping_files",
    ("fal", "still served"): "is_keeping_files",
    ("fal", "result still served"): "is_keeping_results",
    ("http", "still served"): "is_lying",
    ("comfyui", "still served"): "is_keeping_files",
    ("comfyui", "record still served"): "is_keeping_records",
}
CANCELED = "canceled_by_user"
RACES = {
    "replicate": End(CANCELED, False, 1, EXPIRES, "expires"),
    "fal": End(CANCELED, False, 1, rows(LOGGED), "expires"),
    "openai_images": End(CANCELED, False, 1, UNKNOWN, "unknown"),
    "http": End(CANCELED, False, 1, DELETED, "deleted"),
    "cog": End(CANCELED, False, 1, EXPIRES, "expires"),
    "comfyui": End(CANCELED, False, 1, DELETED, "deleted"),
    "kserve": End(CANCELED, False, 1, UNKNOWN, "unknown"),
}
"""How a job ends that is cancelled in the moment in which its provider has done it."""
CANNOT_CANCEL = {"openai_images", "kserve"}

DUE = "UPDATE attempts SET purge_at = now() - interval '1 second' WHERE purge_at IS NOT NULL"


@pytest.mark.parametrize("case", [c for c in CASES if c.name in DELETES], ids=lambda case: case.name)
async def test_what_a_delete_is_answered_is_not_all_that_is_known(
    case: Case, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """404 to a delete says that nothing is there; success and still served is `unknown`, and the alarm counts."""
    found: dict[str, End] = {}
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        for answer in DELETES[case.name]:
            emulator = at.stage.renew()
            if answer == "404":
                emulator.next(ROUTES.get(case.name, "delete"), *[GONE] * 9)
            else:
                setattr(emulator, STICKY[case.name, answer], True)
            alarms = await at.alarms()
            found[answer] = await at.end(await sent(at.services, large() if case.name == "replicate" else None))
            assert await at.alarms() - alarms == (answer != "404"), answer
            assert case.name != "replicate" or emulator.requests("upload")
            assert emulator.requests(ROUTES.get(case.name, "delete")), answer

    assert found == DELETES[case.name]


async def test_nothing_is_known_of_a_file_whose_upload_was_not_answered(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lie there for a day, and nobody can name it: the receipt says neither deleted nor gone in an hour."""
    (case,) = (case for case in CASES if case.name == "replicate")
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        emulator = at.stage.renew()
        emulator.next("upload", LOST_AFTER_WORK)
        found = await at.end(await sent(at.services, large()))

        assert found == End("succeeded", True, 1, rows("unknown expires_by expires_by", UPLOADED), "unknown")
        assert len(emulator.files) == 1
        assert await at.alarms() == 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_provider_that_ends_while_it_is_cancelled(
    case: Case, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's word holds: canceled, free, one order; and the receipt says what is known of what was made for it."""
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        emulator = at.stage.renew()
        take_long(case, emulator)
        job = await sent(at.services)
        await eventually(lambda: is_under_way(at, job))

        verdict = await at.services.cancellation.delete(await reread(at.services, job))
        assert (verdict.job.state, verdict.canceled, verdict.job.charged) == ("canceled", True, False)

        if case.name not in CANNOT_CANCEL:
            await eventually(lambda: is_revised(at, job, settings), within_s=20)
            assert emulator.requests("cancel")
        assert await at.end(job) == RACES[case.name]
        assert (await receipt(at.services, job)).revision == (1 if case.name in CANNOT_CANCEL else 2)
        assert await at.alarms() == (case.name in CANNOT_CANCEL)


def take_long(case: Case, emulator: Any) -> None:
    """Let an attempt go on until it is cancelled, and end well in that moment."""
    emulator.ends_at_cancel = True
    if case.name in CANNOT_CANCEL:
        emulator.latency_s = 2.0
    elif case.name == "http":
        emulator.polls_needed = 10**6
    else:
        emulator.run_s = 60.0


async def is_under_way(at: Theatre, job: Job) -> bool:
    """Whether the provider has the order, and its handle is stored where there is one."""
    if not at.stage.actor.requests(ORDERS.get(at.name, "order")):
        return False
    (attempt,) = await at.services.stores.attempts.of_job(job.id)
    return at.name in CANNOT_CANCEL or bool(attempt.handle and attempt.handle.id)


async def is_revised(at: Theatre, job: Job, settings: Settings) -> bool:
    """Whether the provider has said all that it can; nobody waits a minute before it is asked again."""
    await run_sql(settings, DUE)
    return (await reread(at.services, job)).provider_copies != "pending"


def large() -> bytes:
    """A picture that Replicate is given as a file: nothing makes it smaller."""
    return saved(Image.frombytes("RGB", (300, 260), random.Random(1).randbytes(300 * 260 * 3)), "PNG")
