"""The demo's own eyes: what it would see if something were left."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from broker.demo.metadata import details
from broker.demo.report import Report
from broker.demo.search import pieces, search
from broker.demo.stage import PHOTO
from broker.demo.story import compare


def quiet() -> Report:
    return Report(Console(file=StringIO(), width=120))


def test_the_photo_has_what_the_demo_shows_gone() -> None:
    """EXIF, GPS, a comment and XMP are planted in the photo, and are read from its bytes."""
    found = {detail.name: detail.text for detail in details(PHOTO.read_bytes())}
    assert found["GPS latitude"] == "51 28 40"
    assert found["serial number"] == "SN-0042-PLANTED"
    assert found["comment"].startswith("Planted comment")
    assert any("adobe" in text for text in found.values())


def test_a_result_that_kept_anything_fails_the_demo(tmp_path: Path) -> None:
    """The photo itself, passed off as the result, fails in size, in fields and in text."""
    result = tmp_path / "result.jpg"
    result.write_bytes(PHOTO.read_bytes())
    report = quiet()
    compare(result, report)
    assert len(report.failed) == 3


def test_plaintext_on_disk_is_found_wherever_it_lies(tmp_path: Path) -> None:
    """Half of the photo inside a larger file is found, across the blocks in which files are read."""
    photo = PHOTO.read_bytes()
    (tmp_path / "deep").mkdir()
    (tmp_path / "harmless").write_bytes(bytes(1000))
    wanted = pieces(photo)
    assert not search(tmp_path, wanted).found
    before = bytes(4 * 1024 * 1024 - len(photo) // 4)
    (tmp_path / "deep" / "heap").write_bytes(before + photo[len(photo) // 2 :])
    result = search(tmp_path, wanted)
    assert {path for _, path in result.found} == {str(tmp_path / "deep" / "heap")}
    assert len(result.found) >= len(wanted) // 2
    assert result.files == 2


def test_a_needle_across_two_blocks_is_found(tmp_path: Path) -> None:
    """Reading in blocks loses nothing at their edges."""
    needle = b"0123456789abcdef"
    (tmp_path / "file").write_bytes(bytes(4 * 1024 * 1024 - 7) + needle)
    assert search(tmp_path, [needle]).places(needle)
