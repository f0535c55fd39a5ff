"""What a broker needs at most when many large uploads come at once."""

from bench.load import Plan, Tally, run_load
from bench.machine import peak_rss_bytes
from bench.report import Chapter, Figure, at_most
from bench.scale import Scale
from bench.stack import Stack

UPLOADS = 50
UPLOAD_BYTES = 20_000_000
MEGABYTE = 1_000_000


async def uploads(stack: Stack, scale: Scale) -> Chapter:
    """Send fifty uploads at once to a new broker, round after round, and read the most memory it has had."""
    tokens = await stack.tokens(UPLOADS)
    plan = Plan(port=stack.port, tokens=tokens, phones=UPLOADS, count=UPLOADS, body_bytes=UPLOAD_BYTES)
    peaks: list[float] = []
    tallies: list[Tally] = []
    async with stack.pretended_worker("noop", "noop"):
        for _ in range(scale.rounds):
            async with stack.broker() as broker:
                tallies.append(await run_load(plan))
                peaks.append(peak_rss_bytes(broker.pid) / MEGABYTE)
            await stack.forget()
    if any(tally.done != UPLOADS for tally in tallies):
        raise RuntimeError(f"not all of {UPLOADS} uploads were taken in: there is no figure")
    method = (
        f"VmHWM of a new broker process in each round after {UPLOADS} PUTs of 20 MB on {UPLOADS} connections at once."
    )
    return Chapter(
        title="Memory of a broker under large uploads",
        figures=(
            Figure(
                name="broker's peak RSS, 50 uploads of 20 MB at once",
                unit="MB",
                rounds=tuple(peaks),
                budget=at_most(200),
                method=method,
            ),
            Figure(
                name="taken in meanwhile",
                unit="MB/s",
                rounds=tuple(UPLOADS * UPLOAD_BYTES / MEGABYTE / tally.took_s for tally in tallies),
                method="all bytes by the time until the last 202.",
            ),
        ),
    )
