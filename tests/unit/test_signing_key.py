"""The key that signs receipts: one file, made once, for its owner alone."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from broker.store.signing_key import load_signer

NAME = "lethe.test/receipts"


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """The first start makes it with mode 0600, the second reads the same one."""
    path = tmp_path / "receipt.key"

    first, second = load_signer(path, NAME), load_signer(path, NAME)

    assert first.vkey == second.vkey
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["receipt.key"], "no draft is left"


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    """Whoever is first makes it; nobody reads half a key."""
    path = tmp_path / "receipt.key"

    with ThreadPoolExecutor(16) as pool:
        signers = list(pool.map(load_signer, [path] * 64, [NAME] * 64))

    assert len({signer.vkey for signer in signers}) == 1
    assert [found.name for found in tmp_path.iterdir()] == ["receipt.key"]
