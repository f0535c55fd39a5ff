"""Sends one picture, follows its job and saves the result: what a phone does, with progress bars."""

from pathlib import Path
from uuid import uuid4

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from broker.client import Client, ClientError, JobView
from broker.opener import Opener


class JobFailed(ClientError):
    """The job ended without a result."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with which file, and where the result goes."""

    file: Path
    operation: str
    parameters: dict[str, str]
    texts: dict[str, str] = {}
    """Parameters that a user typed."""
    output: Path
    receipt: Path | None = None
    device: Opener | None = None
    """Opens the result, under a profile that seals."""


async def submit(client: Client, order: Order, *, console: Console) -> str:
    """Do the whole main job and return the job's id; a ClientError says what went wrong."""
    job_id = str(uuid4())
    if order.device:
        await order.device.register(client)
    with progress_bars(console) as bars:
        await send(client, order, job_id=job_id, bars=bars)
        await finish(client, job_id, operation=order.operation, bars=bars)
        await _save(client, job_id, order)
    if order.receipt:
        order.receipt.write_text(await client.receipt(job_id))
    return job_id


async def _save(client: Client, job_id: str, order: Order) -> None:
    if order.device:
        order.output.write_bytes(await order.device.open(client, job_id, 0))
    else:
        await client.download(job_id, 0, order.output)


async def send(client: Client, order: Order, *, job_id: str, bars: Progress) -> JobView:
    """Upload the file as the body of one PUT."""
    size = order.file.stat().st_size
    bar = bars.add_task(f"sending {order.file.name}", total=size)
    with order.file.open("rb") as body:
        return await client.put(
            job_id,
            order.operation,
            order.parameters,
            body,
            size=size,
            sent=lambda count: bars.advance(bar, count),
            texts=order.texts,
        )


async def finish(client: Client, job_id: str, *, operation: str, bars: Progress) -> JobView:
    """Follow a job to its end; raise JobFailed unless it succeeded."""
    bar = bars.add_task(operation, total=1.0)
    async for job in client.follow(job_id):
        bars.update(bar, completed=job.progress, description=f"{operation}: {job.status}")
        if job.is_final:
            return _succeeded(job)
    raise JobFailed(f"job {job_id} was lost from sight")


def _succeeded(job: JobView) -> JobView:
    if job.status != "succeeded":
        why = " ".join(word for word in (job.error_code, job.error_detail) if word)
        raise JobFailed(f"job {job.id} {job.status}: {why}" if why else f"job {job.id} {job.status}")
    return job


def progress_bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )


async def submit_as(order: Order, *, url: str, token: str, keep: bool, console: Console) -> None:
    """Do the main job as this user, or as a new one whose token is shown, and delete the result on the server."""
    async with Client(url, token=token) as client:
        if not token:
            user = await client.mint_user()
            console.print(
                f"new user {user.user_id}; to be it again: export LETHE_TOKEN={user.token}",
                markup=False,
                soft_wrap=True,
            )
        job_id = await submit(client, order, console=console)
        console.print(f"saved {order.output}", markup=False, soft_wrap=True)
        if keep:
            console.print(
                f"the result stays at {url}/v1/jobs/{job_id}/outputs/0 until its time is up",
                markup=False,
                soft_wrap=True,
            )
            return
        await client.delete(job_id)
        console.print(
            "the upload was gone before the job was done; the result is deleted on the server now", soft_wrap=True
        )
