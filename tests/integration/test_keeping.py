"""What a job made is kept under a key of its own, for as long as its output may live."""

import pytest

from broker.custody import Holder
from broker.jobs import Output
from broker.services import Services
from tests.lifecycle import claimed_job, refs, reread
from tests.stack import watch_puts
from workers.outputs import SETTLE_MARGIN_S, Made, keep_output

MADE = Made(data=memoryview(b"an output of a job"), media_type="image/png", width=2, height=3)


async def kept(services: Services, times: int) -> list[Output]:
    """What so many attempts of one job keep, one after the other."""
    job = await claimed_job(services)
    outputs = [await keep_output(services.stores, job, MADE, n=0, lifetime_s=30) for _ in range(times)]
    assert set(await refs(services, job.id, Holder.BLOB)) >= {output.blob for output in outputs}
    assert (await reread(services, job)).state == "running"
    return outputs


async def test_every_attempt_keeps_its_output_under_a_key_of_its_own(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second attempt uses neither the key, nor the key's id, nor the blob of the first."""
    puts = watch_puts(services, monkeypatch)
    first, second = await kept(services, 2)
    assert first.blob != second.blob
    assert first.key_id != second.key_id
    assert len({*(put.key for put in puts), bytes(32)}) == len(puts) + 1 == 4


async def test_an_outputs_key_ends_with_its_output(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should nobody be left to sweep it, the keyholder ends it by itself, a minute after the output's time."""
    puts = watch_puts(services, monkeypatch)
    await kept(services, 1)
    _upload, output = puts
    assert output.ttl_s == 30 + SETTLE_MARGIN_S
