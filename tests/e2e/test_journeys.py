"""`lethe demo --profile`: the user story of each app on a running stack; whatever it claims is checked by itself."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.up_process import lethe, plain_environment, processes_of

CLAIMS = {
    "xpictures": (
        r"without consent nothing is taken in \(403 consent_required\)",
        r"a film costs 5 credits, and there are none yet \(402 credits_required\)",
        "20 credits are granted, no payment data is stored",
        r"a film comes back, [0-9,]+ bytes of MP4",
        "5 credits are taken, once",
        "none of the photo's 14 EXIF, GPS, XMP and comment fields is in it",
        "no user id, no token, no job id is",
        "each copy there has a word, and none is unknown",
        "all 6 copies of what was sent are gone",
        "one message came: which job, and how it ended; no picture, no words, no user",
        "where to tell the phone is forgotten",
    ),
    "m2r": (
        "all 4 copies of what was sent are gone",
        "what the broker keeps and serves is no picture",
        "the phone opens it: the drawing, as large as the photo",
        "it cannot open one yet",
        "the phone hands on 2 keys; the tablet opens all of them",
        "it is refused, and nothing of the photo stays: .*operation_unavailable.*it has no route",
        "the drawing is gone from the gallery, the other picture is there",
        "everything is erased at once, with 2 receipts",
        "the id is nobody's any more",
        "no file is left, but for a mark without content",
    ),
    "imaginex": (
        "without that contract it would be refused: the provider keeps pictures for 2592000 s, this server allows 0 s",
        "two pictures come back",
        "one picture was sent, 256×256: made anew from the pixels",
        "no user id, no token, no job id is",
        "the API key came with 3 requests to its API, as a header and nowhere else",
        "nothing of it is kept there",
        "nothing can be fetched any more",
    ),
    "headpix": (
        "agrees to processing, providers, retention, and to be 16 or older",
        "4 portraits come back, which the phone opens",
        "all 28 copies of what was sent are gone",
        "one order went to the provider, with 12 photos",
        "nothing in it says whose they are",
        "one cookie is set: .*Secure; HttpOnly; SameSite=Strict",
        "the phone hands on 4 keys; the browser shows the same portraits",
        r"with the same cookie another site's page deletes nothing \(cross_site\)",
        r"the browser is nobody any more \(unauthenticated\)",
        "everything is erased at once",
    ),
}


@pytest.mark.parametrize("profile", CLAIMS)
def test_a_journey_is_played_and_every_claim_holds(profile: str, tmp_path: Path) -> None:
    """One command under the shipped profile: the claims are made and hold, and nothing is left running."""
    output, directory = tmp_path / "result.jpg", tmp_path / "stack"
    order = lethe("demo", "--profile", profile, "--output", str(output), "--directory", str(directory))
    run = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "✗" not in run.stdout
    for claim in CLAIMS[profile]:
        assert re.search(f"✓ .*{claim}", run.stdout), claim
    made = output.with_suffix(".mp4") if profile == "xpictures" else output
    assert made.stat().st_size > 0
    assert not processes_of(directory)


def test_a_journey_has_its_own_providers(tmp_path: Path) -> None:
    """Both options at once are refused with a sentence."""
    order = lethe("demo", "--profile", "m2r", "--provider", "fal", "--output", str(tmp_path / "x.jpg"))
    run = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "choose one" in run.stderr
