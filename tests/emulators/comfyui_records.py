"""What emulated ComfyUI shows: jobs on their way, their messages, its refusals."""

import msgspec

from tests.emulators.base import Answer, Json, answer_json

PROMPT = "canary: a bittern in the reeds"
TOLD = f"{PROMPT} in http://10.0.0.9/canary"
"""What an error text of a node may hold, and ours may not."""
ERROR: Json = {"node_id": "2", "node_type": "ImageScaleBy", "exception_type": "ValueError", "exception_message": TOLD}
NO_ROUTE = Answer(status=404, body=b"404: Not Found", headers={"content-type": "text/plain; charset=utf-8"})
NO_METHOD = Answer(status=405, body=b"405: Method Not Allowed", headers={"content-type": "text/plain; charset=utf-8"})
UNKNOWN = answer_json({"error": "Job not found"}, 404)


class Run(msgspec.Struct, kw_only=True):
    """A job on its way; `states` are those to come."""

    graph: Json
    states: list[str]
    state: str = "pending"
    outputs: Json = {}
    messages: list[list[object]] = []


def status_of(run: Run) -> Json:
    """Say how a run went."""
    is_good = run.state == "completed"
    return {"status_str": "success" if is_good else "error", "completed": is_good, "messages": run.messages}


def refusal(node: str, name: str, kind: str) -> Answer:
    """Refuse an order because of one input of one node."""
    told = {"type": kind, "message": TOLD, "details": name, "extra_info": {"input_name": name, "received_value": TOLD}}
    error = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"}
    errors = {node: {"errors": [told], "dependent_outputs": ["3"], "class_type": "ImageScaleBy"}}
    return answer_json({"error": error, "node_errors": errors}, 400)
