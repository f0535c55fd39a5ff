"""Finds the model weights and proves them whole before they are loaded; it never fetches any."""

import hashlib
from pathlib import Path

import msgspec

from broker.wheels import MODEL_DIGESTS
from providers.failures import FailureKind, ProviderFailure


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The two files of one model, proven whole."""

    param: Path
    weights: Path


def fault(file: Path) -> str | None:
    """Say in words what is wrong with one weights file, or None."""
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as exc:
        return f"weights file {file.name} cannot be read ({exc.strerror}): run `make data`"
    if digest != MODEL_DIGESTS[file.name]:
        size_bytes = file.stat().st_size
        return f"weights file {file.name} is truncated or altered ({size_bytes} bytes): delete it, run `make data`"
    return None


def faults(models_dir: Path) -> list[str]:
    """Say what is wrong with each weights file; empty when all are whole."""
    return [said for name in MODEL_DIGESTS if (said := fault(models_dir / name)) is not None]


def find(models_dir: Path, model: str) -> Weights:
    """Return the proven files of a model; raise ProviderFailure naming the file that is not whole."""
    found = Weights(param=models_dir / f"{model}.param", weights=models_dir / f"{model}.bin")
    for file in (found.param, found.weights):
        if (said := fault(file)) is not None:
            raise ProviderFailure(FailureKind.PROVIDER_ERROR, said)
    return found
