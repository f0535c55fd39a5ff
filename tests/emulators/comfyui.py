"""
ComfyUI, emulated: folders, a queue, a history, and the routes of newer servers or of those before /api/jobs.

`python -m tests.emulators.comfyui --port N` serves one that runs comfyui.json: it makes pictures larger.
"""

import asyncio
import io
import secrets
from pathlib import Path

from PIL import Image

from providers.base import Exposure, Model, Setup
from providers.comfyui import ComfyUI
from tests.emulators import serving
from tests.emulators.base import (
    LOST_AFTER_WORK,
    MALFORMED,
    Answer,
    Emulator,
    Json,
    Scripted,
    Seen,
    answer_json,
    broken,
    limited,
)
from tests.emulators.case import Case
from tests.emulators.comfyui_records import ERROR, NO_METHOD, NO_ROUTE, PROMPT, UNKNOWN, Run, refusal, status_of
from tests.emulators.drawing import draw
from tests.emulators.forms import fields_of, files_in

WORKFLOW = Path(__file__).with_name("comfyui.json")


class ComfyEmulator(Emulator):
    """
    The server. `states` and `ending` are what the next jobs go through and end with.

    With `run_s` time drives a job; without, every look takes it one state further.
    """

    def __init__(self, *, is_old: bool = False, run_s: float = 0.0) -> None:
        super().__init__()
        self.is_old = is_old
        self.run_s = run_s
        self.states = ["pending", "in_progress"]
        self.ending = ""
        self.error = ERROR
        self.looks: list[Answer] = []
        """What the next looks at a job that exists are answered with."""
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.runs: dict[str, Run] = {}
        self.started = 0
        self.saves_as: tuple[str, str] = ("images", "png")
        """The name of the list in which a node shows its files, and their kind."""
        self.shows: Json = {}
        """Outputs of the next jobs, instead of those that they make."""
        self.is_keeping_files = False
        """Writing over a file is answered with success, and the file stays as it was."""
        self.is_keeping_records = False
        self.ends_at_cancel = False
        """What is to be cancelled ends in this moment, with its result."""
        self.is_restarting = False
        """The next look at a job finds a server that has just been restarted."""
        self.routes = {
            "POST /upload/image": ("upload", self.upload),
            "POST /prompt": ("order", self.order),
            "GET /prompt": ("health", self.health),
            "GET /api/jobs/{id}": ("job", self.job),
            "POST /api/jobs/{id}/cancel": ("cancel", self.cancel),
            "GET /history/{id}": ("entry", self.entry),
            "POST /history": ("forget", self.forget),
            "GET /queue": ("queue", self.queue),
            "POST /queue": ("unqueue", self.unqueue),
            "POST /interrupt": ("interrupt", self.interrupt),
            "GET /view": ("view", self.view),
            "HEAD /view": ("length", self.view),
        }

    async def upload(self, seen: Seen) -> Answer:
        """Write a file, over one of the same name where it is told to."""
        fields, (part,) = fields_of(seen), files_in(seen)
        folder, subfolder, name = fields.get("type", "input"), fields.get("subfolder", ""), part.file_name or ""
        assert fields["overwrite"] == "true"
        if not (self.is_keeping_files and (folder, subfolder, name) in self.files):
            self.files[folder, subfolder, name] = part.content
        return answer_json({"name": name, "subfolder": subfolder, "type": folder})

    async def order(self, seen: Seen) -> Answer:
        """Queue a workflow; the same id twice is two jobs, as it is there."""
        body: Json = seen.json()
        name = body["prompt"]["1"]["inputs"].get("image")
        if name is not None and ("temp", "", name.removesuffix(" [temp]")) not in self.files:
            return refusal("1", "image", "custom_validation_failed")
        self.started += 1
        run = self.runs[body["prompt_id"]] = Run(graph=body["prompt"], states=list(self.states))
        if self.run_s:
            self._running = asyncio.create_task(self._wait(run))
        return answer_json({"prompt_id": body["prompt_id"], "number": self.started, "node_errors": {}})

    async def health(self, seen: Seen) -> Answer:
        """Say how much is queued."""
        return answer_json({"exec_info": {"queue_remaining": len(self._queued())}})

    async def job(self, seen: Seen, id: str) -> Answer:  # noqa: A002  the name stands in the path
        """Show a job, one state further."""
        if self.is_old:
            return NO_ROUTE
        run = self.runs.get(id)
        if run is None:
            return UNKNOWN
        if self.is_restarting:
            self.restart()
            return UNKNOWN
        if self.looks:
            return self.looks.pop(0)
        self._step(run)
        shown: Json = {"id": id, "status": run.state, "outputs_count": 0, "workflow": {"prompt": run.graph}}
        if run.state in {"completed", "failed", "cancelled"}:
            shown |= {"outputs": run.outputs, "execution_status": status_of(run)}
        return answer_json(shown)

    async def cancel(self, seen: Seen, id: str) -> Answer:  # noqa: A002
        """Stop a job wherever it is; one that ended stays as it is."""
        return NO_METHOD if self.is_old else answer_json({"cancelled": self._stop(id)})

    async def entry(self, seen: Seen, id: str) -> Answer:  # noqa: A002
        """Show a job that ended; nothing of one that did not."""
        run = self.runs.get(id)
        if run is None or run.state in {"pending", "in_progress"}:
            return answer_json({})
        shown = {"prompt": [1, id, run.graph, {}, ["3"]], "outputs": run.outputs, "status": status_of(run)}
        return answer_json({id: shown})

    async def forget(self, seen: Seen) -> Answer:
        """Delete entries of the history."""
        for ident in seen.json()["delete"]:
            if not self.is_keeping_records and ident not in self._queued():
                self.runs.pop(ident, None)
        return Answer()

    async def queue(self, seen: Seen) -> Answer:
        """Show the whole queue, and take what is in it one state further."""
        items = {ident: [1, ident, run.graph, {}, ["3"]] for ident, run in self._queued().items()}
        shown = {
            name: [items[ident] for ident, run in self._queued().items() if run.state == state]
            for name, state in (("queue_running", "in_progress"), ("queue_pending", "pending"))
        }
        for run in self._queued().values():
            self._step(run)
        return answer_json(shown)

    async def unqueue(self, seen: Seen) -> Answer:
        """Take jobs out of the queue that do not run yet."""
        for ident in seen.json()["delete"]:
            if ident in self.runs and self.runs[ident].state == "pending":
                del self.runs[ident]
        return Answer()

    async def interrupt(self, seen: Seen) -> Answer:
        """Interrupt the job that runs."""
        self._stop(seen.json()["prompt_id"])
        return Answer()

    async def view(self, seen: Seen) -> Answer:
        """Serve a file."""
        where = (seen.query.get("type", "output"), seen.query.get("subfolder", ""), seen.query["filename"])
        if where not in self.files:
            return Answer(status=404)
        content = self.files[where]
        kind = {"png": "image/png", "mp4": "video/mp4"}.get(where[2].rpartition(".")[2], "application/octet-stream")
        headers = {"content-type": kind, "content-length": str(len(content))}
        return Answer(body=b"" if seen.method == "HEAD" else content, headers=headers)

    def restart(self) -> None:
        """Lose what a restart loses: the queue, the history and the temp folder."""
        self.is_restarting = False
        self.runs.clear()
        self.files = {where: content for where, content in self.files.items() if where[0] != "temp"}

    def _queued(self) -> dict[str, Run]:
        return {ident: run for ident, run in self.runs.items() if run.state in {"pending", "in_progress", "resting"}}

    async def _wait(self, run: Run) -> None:
        run.state, run.states = "in_progress", []
        await asyncio.sleep(self.run_s)
        self._end(run)

    def _step(self, run: Run) -> None:
        if self.run_s or run.state in {"completed", "failed", "cancelled"}:
            return
        if run.states:
            run.state = run.states.pop(0)
        else:
            self._end(run)

    def _stop(self, ident: str) -> bool:
        if ident not in self._queued():
            return False
        run = self.runs[ident]
        if self.ends_at_cancel:
            self._end(run)
            return False
        if run.state == "pending":
            del self.runs[ident]
        else:
            self._interrupted(run)
        return True

    def _interrupted(self, run: Run) -> None:
        run.state = "failed" if self.is_old else "cancelled"
        run.messages = [["execution_start", {"timestamp": 1000}], ["execution_interrupted", {"node_id": "2"}]]

    def _end(self, run: Run) -> None:
        if self.ending == "canceled_there":
            return self._interrupted(run)
        run.messages = [["execution_start", {"timestamp": 1000}]]
        if self.ending == "failed":
            run.state = "failed"
            return run.messages.append(["execution_error", self.error])
        if self.ending != "no_output":
            run.outputs = self.shows or {"3": self._saved(run.graph)}
        run.state = "completed"
        return run.messages.append(["execution_success", {"timestamp": 2250}])

    def _saved(self, graph: Json) -> Json:
        name = graph["1"]["inputs"].get("image", "").removesuffix(" [temp]")
        picture = Image.open(io.BytesIO(self.files["temp", "", name])) if name else None
        drawn = draw(picture, {"scale": graph["2"]["inputs"].get("scale_by", 1)})
        shown, kind = self.saves_as
        content = drawn if kind == "png" else b"\x00\x00\x00\x18ftypmp42" + drawn
        where = {"filename": f"ComfyUI_temp_{secrets.token_hex(3)}_00001_.{kind}", "subfolder": "", "type": "temp"}
        self.files["temp", "", where["filename"]] = content
        return {shown: [where], "animated": [kind != "png"]}


ANSWERS = {
    "rate_limited": limited(),  # a proxy in front of it
    "overloaded": broken(503),
    "server_error": broken(500),
    "auth": Scripted(answer=answer_json({"detail": "who are you"}, 401)),
    "invalid": Scripted(answer=refusal("2", "scale_by", "value_bigger_than_max")),
    "lost_order": LOST_AFTER_WORK,
    "malformed_order": MALFORMED,
    "gateway_timeout": broken(524),  # a proxy in front of it
    "no_such_model": Scripted(answer=NO_ROUTE),  # a missing checkpoint is a 400
}
"""Faults that answer the order."""
UNREADABLE = Answer(body=b'{"id": ')
ENDINGS = {"failed", "canceled_there", "no_output"}


LACKS = {
    "payment": "a server of one's own bills nobody; nodes that buy elsewhere would send the picture there",
    "moderated": "it judges no picture: a node of somebody's own that does so raises, and that is failed",
}


def script(emulator: ComfyEmulator, fault: str) -> bool:
    """Let a fault happen to the next attempt."""
    if fault in ANSWERS:
        emulator.next("order", ANSWERS[fault])
    elif fault == "malformed_poll":
        emulator.looks.append(UNREADABLE)
    elif fault == "forgotten":
        emulator.is_restarting = True
    elif fault in ENDINGS:
        emulator.ending = fault
    elif fault == "unknown_state":
        emulator.states = ["pending", "resting"]
    else:
        return False
    return True


def make(
    url: str, *, output: str = "", max_outputs: int = 1, workflow: Path = WORKFLOW, seeds: tuple[str, ...] = ()
) -> ComfyUI:
    """Make an adapter to an emulator."""
    model = Model(
        input={"1.image": "$image", "2.scale_by": "$scale:2.0", "4.value": "$prompt"},
        output=output,
        max_outputs=max_outputs,
        options={"workflow_file": str(workflow), "seeds": list(seeds)},
    )
    return ComfyUI(Setup(base_url=url, models={"upscale": model}))


CASE = Case(
    name="comfyui",
    emulator=ComfyEmulator,
    make=make,
    operation="upscale",
    parameters={"scale": 2, "prompt": PROMPT},
    script=script,
    lacks=LACKS,
    exposure=Exposure.LOCAL,
)

if __name__ == "__main__":
    given = serving.arguments("ComfyUI, emulated")
    serving.serve(ComfyEmulator(run_s=given.seconds), given)
