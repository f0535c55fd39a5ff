"""What Replicate's API shows of predictions and files."""

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.emulators.base import Json

HOUR_S = 3600


@dataclass
class Prediction:
    """One prediction; `states` are those that it goes through before its end."""

    id: str
    body: Json
    model: str
    version: str
    states: list[str]
    deadline_s: float | None
    created: float = field(default_factory=time.time)
    completed: float | None = None
    status: str = "starting"
    ended: Json = field(default_factory=dict[str, Any])


def shown(prediction: Prediction, base_url: str) -> Json:
    """Write a prediction as the API does."""
    own = f"{base_url}/v1/predictions/{prediction.id}"
    deadline = prediction.created + prediction.deadline_s if prediction.deadline_s else None
    return {
        "id": prediction.id,
        "model": prediction.model,
        "version": prediction.version,
        "input": prediction.body["input"],
        "output": None,
        "logs": " 40%|████      | 4/10 [00:01<00:01]" if prediction.status == "processing" else "",
        "error": None,
        "status": prediction.status,
        "source": "api",
        "created_at": _time(prediction.created),
        "started_at": None if prediction.status == "starting" else _time(prediction.created),
        "completed_at": _time(prediction.completed),
        "deadline": _time(deadline),
        "data_removed": False,
        "metrics": {},
        "urls": {"get": own, "cancel": f"{own}/cancel", "web": f"https://replicate.com/p/{prediction.id}"},
        **prediction.ended,
    }


def file_of(content: bytes, base_url: str, *, name: str, media_type: str) -> Json:
    """Write a new file as the API does."""
    ident, now = secrets.token_urlsafe(24), time.time()
    return {
        "id": ident,
        "name": name,
        "content_type": media_type,
        "size": len(content),
        "etag": hashlib.md5(content).hexdigest(),
        "checksums": {"sha256": hashlib.sha256(content).hexdigest(), "md5": hashlib.md5(content).hexdigest()},
        "metadata": {},
        "created_at": _time(now),
        "expires_at": _time(now + 24 * HOUR_S),
        "urls": {"get": f"{base_url}/v1/files/{ident}"},
    }


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def seconds(text: str) -> float | None:
    """Read Cancel-After."""
    return float(text.removesuffix("s")) if text else None
