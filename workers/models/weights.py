"""Finds the model weights and proves them whole before they are loaded; it never fetches any."""

import hashlib
from pathlib import Path

import msgspec

from providers.base import FailureKind, ProviderFailure


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The two files of one model, proven whole."""

    param: Path
    weights: Path


SHA256: dict[str, str] = {
    "realesr-animevideov3-x2.param": "b88ff4f00ebf019a7fdac17fdd45a7fd3665d37509efc5baf2e4da2e24420a04",
    "realesr-animevideov3-x2.bin": "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    "realesr-animevideov3-x3.param": "d1a5755008791d09b57e3425fc9dd0bd26b00fdf79c606210bc0e693f8230881",
    "realesr-animevideov3-x3.bin": "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    "realesr-animevideov3-x4.param": "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
    "realesr-animevideov3-x4.bin": "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    "realesrgan-x4plus.param": "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
    "realesrgan-x4plus.bin": "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
}


def fault(file: Path) -> str | None:
    """Say in words what is wrong with one weights file, or None."""
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as exc:
        return f"weights file {file.name} cannot be read ({exc.strerror}): run `make data`"
    if digest != SHA256[file.name]:
        size_bytes = file.stat().st_size
        return f"weights file {file.name} is truncated or altered ({size_bytes} bytes): delete it, run `make data`"
    return None


def faults(models_dir: Path) -> list[str]:
    """Say what is wrong with each weights file; empty when all are whole."""
    return [said for name in SHA256 if (said := fault(models_dir / name)) is not None]


def find(models_dir: Path, model: str) -> Weights:
    """Return the proven files of a model; raise ProviderFailure naming the file that is not whole."""
    found = Weights(param=models_dir / f"{model}.param", weights=models_dir / f"{model}.bin")
    for file in (found.param, found.weights):
        if (said := fault(file)) is not None:
            raise ProviderFailure(FailureKind.PROVIDER_ERROR, said)
    return found
