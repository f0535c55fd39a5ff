"""What a provider has done and is paid for: whatever fails on its way to us, it is neither lost nor ordered again."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from broker.custody import Domain, Holder, What
from broker.errors import BlobsUnavailable, KeyholderUnavailable, StoreUnavailable, Unavailable
from broker.jobs import Job, JobState
from broker.services import Services
from broker.settings import Settings
from broker.store.blobs import BlobStore
from broker.store.custody import CustodyStore
from broker.store.keyholders import Keyholders
from broker.store.keys import Keyholder
from tests.contract.cases import CASES
from tests.emulators.base import LOST, Answer, Scripted, Seen, answer_json, broken, limited, running
from tests.emulators.http import SECRET, AcmeEmulator
from tests.lifecycle import blobs
from tests.provider_tables import table
from tests.relay import SECRET_VARIABLE, attempts, ended, relaying, route, sent
from tests.stack import keyholder_of
from tests.stage import ORDERS, theatre

STORES: list[tuple[type, str, type[Unavailable]]] = [
    (Keyholders, "pick", KeyholderUnavailable),
    (CustodyStore, "open", StoreUnavailable),
    (BlobStore, "put", BlobsUnavailable),
    (Keyholder, "put", KeyholderUnavailable),
]
"""What keeps an output, in this order."""
Verb = Callable[..., Coroutine[Any, Any, object]]


def let_fail_once(monkeypatch: pytest.MonkeyPatch, is_ordered: Callable[[], bool]) -> list[str]:
    """Let the answer of each store be lost once, after the order came; return the verbs that have yet to fail."""
    to_fail = [f"{store.__name__}.{verb}" for store, verb, _ in STORES]

    def failing(store: type, verb: str, error: type[Unavailable]) -> None:
        real: Verb = getattr(store, verb)
        name = f"{store.__name__}.{verb}"

        async def once(*args: object, **named: object) -> object:
            done = await real(*args, **named)
            if is_ordered() and name in to_fail:
                to_fail.remove(name)
                raise error
            return done

        monkeypatch.setattr(store, verb, once)

    for store, verb, error in STORES:
        failing(store, verb, error)
    return to_fail


@pytest.mark.parametrize("name", ["openai_images", "kserve", "replicate"])
async def test_an_output_waits_for_a_store_that_is_away(
    name: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whether it came with the answer to its order or can be asked for: it is kept in the end, of one order.

    What was kept in vain is destroyed when the job settles.
    """
    case = next(case for case in CASES if case.name == name)
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        emulator = at.stage.renew()
        to_fail = let_fail_once(monkeypatch, lambda: bool(emulator.requests(ORDERS.get(name, "order"))))
        job = await sent(at.services)
        end = await at.end(job)

        assert (end.outcome, end.is_charged, end.orders) == ("succeeded", True, 1)
        assert len(await attempts(at.services, job)) == 1
        assert to_fail == []
        await nothing_else_is_kept(at.services, job, settings)


async def nothing_else_is_kept(services: Services, job: Job, settings: Settings) -> None:
    """Of several tries to keep an output one is served, and nothing of the others is there."""
    (output,) = await services.stores.custody.outputs(job.id)
    copies = [copy for copy in await services.stores.custody.copies(job.id) if copy.domain is Domain.OURS]
    kept = [copy for copy in copies if copy.what is What.OUTPUT]
    assert len(kept) == 2 * len(STORES), "each try but the first opened two rows"
    assert {copy.ref for copy in kept if copy.is_open} == {output.blob, output.key_id.hex()}
    assert blobs(settings) == [output.blob]
    for copy in kept:
        if copy.holder is Holder.KEY:
            has = await keyholder_of(services).has(bytes.fromhex(copy.ref))
            assert has is (copy.ref == output.key_id.hex())


class PromptEmulator(AcmeEmulator):
    """Has done what is ordered when it answers the order; the result lies elsewhere."""

    async def _order(self, seen: Seen) -> Answer:
        answer = await super()._order(seen)
        assert answer.status == 201
        name = list(self.jobs)[-1]
        self.polls_needed = 0
        self.jobs[name]["state"] = "finished"
        return answer_json({"job": {"id": name, "state": "finished"}}, 201)


@pytest.mark.parametrize(
    "fault",
    [LOST, limited(), broken(503), broken(500), broken(404)],
    ids=["lost", "limited", "overloaded", "broken", "not_there_yet"],
)
async def test_an_order_that_is_done_at_once_is_not_placed_again_for_its_result(
    fault: Scripted, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order's own answer says done: a question for the result that fails is asked again, under the same id."""
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    emulator = PromptEmulator()
    with running(emulator):
        elsewhere = table("http", emulator.url).replace('output = "/result/images"\n', "")
        elsewhere = elsewhere.replace("poll_after_s", 'result_path = "/v1/jobs/{id}/result"\npoll_after_s')
        async with relaying(settings, tmp_path, elsewhere + route("upscale", "[{ http = 1 }]")) as services:
            emulator.next("result", fault)
            job = await ended(services, await sent(services))

            assert (job.state, job.charged) == (JobState.SUCCEEDED, True)
            assert len(emulator.requests("order")) == len(await attempts(services, job)) == 1
            assert len(emulator.requests("result")) == 2


@pytest.mark.parametrize(
    ("asked", "answer"),
    [("status", answer_json({}, 500, X_Fal_Error_Type="internal_error")), ("sign", answer_json({}, 404))],
    ids=["status", "sign"],
)
async def test_an_order_that_runs_is_not_placed_again_for_a_question(
    asked: str, answer: Answer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fal names an error of its own at the status, or has no link to the output yet: the order goes on to its end."""
    case = next(case for case in CASES if case.name == "fal")
    async with theatre(case, settings, tmp_path, monkeypatch) as at:
        emulator = at.stage.renew()
        emulator.next(asked, Scripted(answer=answer))
        job = await sent(at.services)
        end = await at.end(job)

        assert (end.outcome, end.is_charged, end.orders) == ("succeeded", True, 1)
        assert len(await attempts(at.services, job)) == 1
        assert not emulator.script[asked]
