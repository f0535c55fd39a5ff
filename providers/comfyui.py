"""
ComfyUI: a workflow, exported as it is (Workflow > Export (API)), queued under the attempt's own id, polled, and purged.

`options` names the file: `{ workflow_file = "upscale.json", seeds = ["3.seed"] }`. `input` fills it, by node and input:
`{ "1.image" = "$image", "2.scale_by" = "$scale:2" }`; what has no value keeps the file's. `output`, a JSON pointer,
chooses nodes ("/9", "/9/images/0"); without it every saved file counts, or every preview where nothing is saved.

It has no call that deletes a file. Pictures go into its temp folder under the attempt's id; purge overwrites them and
all outputs with nothing, looks, and then deletes the history entry, which holds the words. Its memory (the cache of its
last runs) nobody can empty: run it with --cache-none. What no purge reached lies there until somebody restarts it,
which empties the temp folder, and sweeps its output folder: once a day, or declare a longer `retention_s`. It has no
authentication and shows everything to whoever asks: leave its port to the workers alone.
"""

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, ClassVar

import msgspec

from providers import calls
from providers.base import (
    Deletes,
    Exposure,
    Handle,
    Model,
    Output,
    Part,
    Progress,
    Purge,
    Reporter,
    Setup,
    Snapshot,
    Takes,
    Task,
    Terms,
)
from providers.calls import Reply
from providers.comfyui_graph import Workflow
from providers.comfyui_jobs import ENDED, History, Job, Queue, Stored, files_in, in_queue, refused_inputs
from providers.failures import FailureKind, ProviderFailure
from providers.pictures import file_name, files_of, read
from providers.templates import is_picture, model_for, names_in, picture_values, pointed

POLL_AFTER_S = 1.0
STOPPED_WITHIN_S = 2.0
"""How long cancel() watches whether a running workflow stops: it looks at interrupts between its steps only."""
LOOK_AGAIN_S = 0.2

_NO_ROUTE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})


class _Ordered(msgspec.Struct, frozen=True, kw_only=True):
    prompt_id: str


class ComfyUI:
    """The adapter to a ComfyUI server, older ones without /api/jobs included."""

    terms: ClassVar[Terms] = Terms(
        takes=Takes.FILE,
        operations=frozenset({"upscale", "restyle", "generate", "edit", "animate", "photoshoot", "remove_background"}),
        exposure=Exposure.LOCAL,
        retention_s=86_400,
        deletes=Deletes.API,
        media_types=frozenset({"image/jpeg", "image/png", "image/webp"}),
        max_pictures=20,
        has_client_ids=True,
    )

    def __init__(self, setup: Setup) -> None:
        self._models = setup.models
        self._workflows = {operation: Workflow(model) for operation, model in setup.models.items()}
        headers = {"Authorization": f"Bearer {setup.secret}"} if setup.secret else None
        self._http = calls.make_client(setup, headers=headers)

    async def warm(self) -> None:
        """Read every workflow and check what fills it; what is wrong is named by its operation."""
        for operation, workflow in self._workflows.items():
            try:
                workflow.load()
            except ProviderFailure as failure:
                raise ProviderFailure(failure.kind, f"{operation}: {failure.detail}", is_unsent=True) from None

    async def submit(self, task: Task, reporter: Reporter) -> Snapshot:
        """Queue the workflow, unless the server knows this attempt: the same order again is never done twice."""
        model = model_for(self._models, task.operation)
        workflow = self._workflows[task.operation]
        uploads = _uploads(task, model)
        # All names are ours, so that what may come to exist can be found and deleted from the first byte on.
        handle = Handle(id=task.attempt, operation=task.operation, uploads=tuple(uploads))
        await reporter.accepted(handle)
        if (job := await self._job(task.attempt)) is not None:
            return await self._snapshot(job, model)
        try:
            for name, content in uploads.items():
                await self._write(Stored(filename=name, type="temp"), content)
            reply = await self._order(task, workflow, list(uploads))
        except ProviderFailure as failure:
            failure.is_unsent = False
            raise
        if not reply.is_ok:
            raise _refused(reply, workflow)
        ordered = calls.decoded(reply, _Ordered, is_order=True).prompt_id
        if ordered != task.attempt:
            # A server that is too old to take ids from us.
            await reporter.accepted(msgspec.structs.replace(handle, id=ordered))
        return Snapshot(progress=Progress.QUEUED, poll_after_s=POLL_AFTER_S)

    async def poll(self, handle: Handle) -> Snapshot:
        """Look the job up; fetch its files when it is done."""
        job = await self._job(handle.id)
        if job is None:
            raise ProviderFailure(FailureKind.LOST, "unknown_job")
        return await self._snapshot(job, self._models.get(handle.operation, Model()))

    async def cancel(self, handle: Handle) -> bool:
        """Take the job out of the queue, or interrupt it and watch for a moment whether it stops."""
        reply = await calls.ask(self._http, "POST", f"/api/jobs/{handle.id}/cancel")
        if reply.status in _NO_ROUTE:
            await self._cancel_in_queue(handle.id)
        elif not reply.is_ok:
            raise calls.refused(reply)
        until = time.monotonic() + STOPPED_WITHIN_S
        while (job := await self._job(handle.id)) is not None:
            if job.status in ENDED or time.monotonic() > until:
                return job.status in ENDED and job.status != "completed"
            await asyncio.sleep(LOOK_AGAIN_S)
        return True

    async def purge(self, handle: Handle) -> Purge:
        """Overwrite files with nothing, delete the record last, and look for all of it."""
        job = await self._job(handle.id)
        if job is not None and job.status not in ENDED:
            # Its outputs are still to come; this is asked again.
            raise ProviderFailure(FailureKind.OVERLOADED, "still_running")
        uploads = [Stored(filename=name, type="temp") for name in handle.uploads]
        is_whole = all([await self._length(file) is not None for file in uploads])
        outputs = list(files_in(job.outputs)) if job else []
        gone = await asyncio.gather(*map(self._destroy, [*uploads, *outputs]))
        are_outputs_gone = all(gone[len(uploads) :])
        # A record is deleted after its outputs, since it alone names them.
        is_record_gone = await self._forget(handle.id) if job and are_outputs_gone else job is None
        found = {Part.UPLOAD: all(gone[: len(uploads)]), Part.OUTPUT: are_outputs_gone, Part.RECORD: is_record_gone}
        deleted = {part for part, is_gone in found.items() if is_gone}
        if job is None and not is_whole:
            # Its temp folder was emptied, by a restart that took its history too: what it saved by then, nobody knows.
            deleted.discard(Part.OUTPUT)
        return Purge(
            deleted=frozenset(deleted), still_served=frozenset(p for p, is_gone in found.items() if not is_gone)
        )

    async def healthy(self) -> None:
        """Ask how long its queue is."""
        reply = await calls.ask(self._http, "GET", "/prompt")
        if not reply.is_ok:
            raise calls.refused(reply)

    async def aclose(self) -> None:
        """Close every connection; what is queued stays."""
        await self._http.aclose()

    async def _order(self, task: Task, workflow: Workflow, uploads: Sequence[str]) -> Reply:
        pictures = picture_values([f"{name} [temp]" for name in uploads if task.pictures])
        graph = workflow.fill({**task.parameters, **pictures, "attempt": task.attempt})
        # Neither client_id nor extra_data: they would say who asks, and be written into every picture.
        return await calls.order(self._http, "POST", "/prompt", json={"prompt": graph, "prompt_id": task.attempt})

    async def _snapshot(self, job: Job, model: Model) -> Snapshot:
        match job.status:
            case "completed":
                outputs = await self._fetched(job, model)
                return Snapshot(progress=Progress.SUCCEEDED, outputs=outputs, model_s=job.model_s)
            case "failed" | "cancelled":
                raise job.failure()
            case "pending":
                return Snapshot(progress=Progress.QUEUED, poll_after_s=POLL_AFTER_S)
            case _:
                return Snapshot(progress=Progress.RUNNING, poll_after_s=POLL_AFTER_S)

    async def _fetched(self, job: Job, model: Model) -> tuple[Output, ...]:
        files = [file for file in files_in(pointed(job.outputs, model.output)) if file.is_media]
        chosen = [file for file in files if file.type == "output"] or files
        if not chosen:
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_output")
        return tuple([await self._read(file) for file in chosen[: model.max_outputs]])

    async def _job(self, ident: str) -> Job | None:
        """Look a job up; None where the server does not know it."""
        reply = await calls.ask(self._http, "GET", f"/api/jobs/{ident}")
        if reply.is_ok:
            return calls.decoded(reply, Job)
        if reply.status not in _NO_ROUTE:
            raise calls.refused(reply)
        # This route says in JSON that it does not know a job; a server without it says nothing of the kind.
        return None if isinstance(reply.json(), dict) else await self._job_in_queue(ident)

    async def _job_in_queue(self, ident: str) -> Job | None:
        if (job := await self._job_in_history(ident)) is not None:
            return job
        queue = calls.decoded(await self._asked("GET", "/queue"), Queue)
        # It may have ended between the two questions.
        return in_queue(queue, ident) or await self._job_in_history(ident)

    async def _job_in_history(self, ident: str) -> Job | None:
        entry = calls.decoded(await self._asked("GET", f"/history/{ident}"), History).get(ident)
        return entry.job() if entry else None

    async def _cancel_in_queue(self, ident: str) -> None:
        await self._asked("POST", "/queue", json={"delete": [ident]})
        queue = calls.decoded(await self._asked("GET", "/queue"), Queue)
        # Only while it runs: servers that are older still interrupt whatever runs.
        if (job := in_queue(queue, ident)) is not None and job.status == "in_progress":
            await self._asked("POST", "/interrupt", json={"prompt_id": ident})

    async def _forget(self, ident: str) -> bool:
        await self._asked("POST", "/history", json={"delete": [ident]})
        return await self._job(ident) is None

    async def _write(self, file: Stored, content: bytes) -> None:
        fields = {"type": file.type, "subfolder": file.subfolder, "overwrite": "true"}
        await self._asked(
            "POST", "/upload/image", data=fields, files={"image": (file.filename, content, "application/octet-stream")}
        )

    async def _read(self, file: Stored) -> Output:
        reply = await calls.ask(self._http, "GET", "/view", params=msgspec.structs.asdict(file))
        if not reply.is_ok or not reply.body:
            raise ProviderFailure(FailureKind.BAD_OUTPUT, "no_file")
        return Output(data=reply.body, media_type=reply.headers.get("content-type", "").partition(";")[0])

    async def _length(self, file: Stored) -> int | None:
        """Return how long a file is that is served; None where there is none."""
        reply = await calls.ask(self._http, "HEAD", "/view", params=msgspec.structs.asdict(file))
        if reply.status == HTTPStatus.NOT_FOUND:
            return None
        if not reply.is_ok:
            raise calls.refused(reply)
        return int(reply.headers.get("content-length", "1"))

    async def _destroy(self, file: Stored) -> bool:
        """Overwrite a file with nothing; True once it is seen to be empty, or not there."""
        if await self._length(file):
            await self._write(file, b"")
        return not await self._length(file)

    async def _asked(self, method: str, path: str, **content: Any) -> Reply:
        reply = await calls.ask(self._http, method, path, **content)
        if not reply.is_ok:
            raise calls.refused(reply)
        return reply


def _uploads(task: Task, model: Model) -> dict[str, bytes]:
    """
    Name what is uploaded: the pictures, or an empty file where there are none.

    As long as one of them is there, the server has not been restarted, and its history is whole.
    """
    is_wanted = any(is_picture(name) for name in names_in(model.input))
    pictures = files_of(task) if is_wanted else ()
    named = {
        f"{task.attempt}-{n}{PurePosixPath(file_name(picture)).suffix}": read(picture)
        for n, picture in enumerate(pictures, 1)
    }
    return named or {f"{task.attempt}-0": b""}


def _refused(reply: Reply, workflow: Workflow) -> ProviderFailure:
    """Make the failure of a refused order: about what tasks fill, or about this server, which lacks a model, a node."""
    if reply.status != HTTPStatus.BAD_REQUEST:
        # UNCERTAIN after a gateway's 504: the order is sent again, and looks for its job first.
        return calls.refused(reply, calls.ORDER_KINDS.get(reply.status))
    filled = next((f"{node}.{name}" for node, name in refused_inputs(reply) if workflow.is_filled(node, name)), "")
    if filled:
        return calls.refused(reply, FailureKind.INVALID_INPUT, detail=f"input_{filled}")
    return calls.refused(reply, FailureKind.UNSUPPORTED, detail="workflow")
