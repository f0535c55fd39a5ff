"""The command line: every command teaches, what is missing is one sentence, and receipts are read aloud."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.cli import main
from broker.custody import Evidence
from broker.demo.by_hand import curl_lines
from broker.forensics.findings import PrivacyReport
from broker.forensics.report import write
from broker.receipts import TYPE, CopyLine, Receipt, Signer
from broker.settings import Settings
from broker.verify import EVIDENCE_WORDS

COMMANDS = (
    "up",
    "demo",
    "broker",
    "work",
    "keyholder",
    "submit",
    "verify",
    "migrate",
    "doctor",
    "forensics",
    "providers",
    "config",
    "notice",
    "profile",
    "operator-key",
    "webhook-key",
    "audit",
    "hold",
    "remove-child",
    "breach",
    "backup",
    "restore",
)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No LETHE_* variable of whoever runs the tests."""
    for field in msgspec.structs.fields(Settings):
        monkeypatch.delenv(field.encode_name, raising=False)


@pytest.fixture
def signer() -> Signer:
    return Signer("lethe.test/receipts", Ed25519PrivateKey.generate())


def say(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def a_receipt(**changed: object) -> Receipt:
    key = CopyLine(domain="ours", holder="key", what="upload", opened_at="A", closed_at="B", evidence="shredded")
    plain = Receipt(
        type=TYPE,
        job=uuid4(),
        revision=1,
        operation="upscale",
        outcome="succeeded",
        code="",
        profile="minimal",
        exposure="local",
        received_at="2026-01-01T00:00:00Z",
        decided_at="2026-01-01T00:00:01Z",
        settled_at="2026-01-01T00:00:02Z",
        provider_copies="none",
        copies=(key,),
    )
    return msgspec.structs.replace(plain, **changed)


def saved(folder: Path, note: str, keys: str) -> list[str]:
    (folder / "receipt.txt").write_text(note)
    (folder / "keys").write_text(keys)
    return ["verify", str(folder / "receipt.txt"), "--keys", str(folder / "keys")]


def test_every_command_is_there() -> None:
    """The group lists these and nothing else."""
    assert sorted(main.commands) == sorted(COMMANDS)


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        *("config check", "config explain", "profile show", "profile diff", "profile check", "audit verify"),
        *("hold propose", "hold confirm", "hold end", "hold list", "breach declare", "breach record"),
    ],
)
def test_help_teaches_with_an_example(command: str) -> None:
    """--help of each command ends its text with a line that can be typed."""
    said = say(*command.split(), "--help")
    assert said.exit_code == 0
    assert "Example:" in said.output
    assert f"lethe {command}" in said.output


@pytest.mark.parametrize("command", [["broker"], ["work", "gpu"]])
def test_a_missing_setting_is_one_sentence(command: list[str]) -> None:
    """The variable is named, nothing is started, no traceback."""
    said = say(*command)
    assert said.exit_code == 1
    assert "LETHE_POSTGRES_DSN" in said.output
    assert len(said.output.strip().splitlines()) == 1


def test_a_keyholder_without_a_socket_is_refused() -> None:
    """The option and its variable are named."""
    said = say("keyholder")
    assert said.exit_code == 2
    assert "--socket" in said.output


def test_a_pool_that_no_provider_runs_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that could never get a job is not started; the pools there are are named."""
    for name in ("POSTGRES_DSN", "REDIS_URL", "BLOBS_URL", "KEYHOLDER_SOCKET", "RECEIPT_KEY_FILE"):
        monkeypatch.setenv(f"LETHE_{name}", "x")
    said = say("work", "cpu")
    assert said.exit_code == 1
    assert "'cpu'; there is gpu" in said.output


def test_a_wrong_lethe_toml_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The worker is refused before it starts, in the words of the file's check."""
    file = tmp_path / "lethe.toml"
    file.write_text("provider = 3\n")
    for name in ("POSTGRES_DSN", "REDIS_URL", "BLOBS_URL", "KEYHOLDER_SOCKET", "RECEIPT_KEY_FILE"):
        monkeypatch.setenv(f"LETHE_{name}", "x")
    monkeypatch.setenv("LETHE_CONFIG_FILE", str(file))
    said = say("work", "gpu")
    assert said.exit_code == 1
    assert "lethe.toml:1:" in said.output


def test_a_receipt_is_read_aloud(signer: Signer, tmp_path: Path) -> None:
    """A valid receipt is said in words, with every copy and how it is known to be gone."""
    said = say(*saved(tmp_path, signer.sign(a_receipt()), signer.vkey + "\n"))
    assert said.exit_code == 0
    assert said.output.startswith("Valid.")
    assert "key of the upload: destroyed" in said.output
    assert "No copy went to a provider outside." in said.output


def test_keys_are_read_as_the_server_publishes_them(signer: Signer, tmp_path: Path) -> None:
    """A saved answer of GET /v1/privacy/keys serves as it is."""
    other = Signer("lethe.test/former", Ed25519PrivateKey.generate())
    items = [{"vkey": key.vkey, "first_used_at": datetime.now(UTC)} for key in (other, signer)]
    published = msgspec.json.encode({"items": items}).decode()
    assert say(*saved(tmp_path, signer.sign(a_receipt()), published)).exit_code == 0


def test_an_altered_receipt_is_not_valid(signer: Signer, tmp_path: Path) -> None:
    """One changed character: exit code 1, and nothing of it is read aloud."""
    note = signer.sign(a_receipt()).replace("succeeded", "canceled_")
    said = say(*saved(tmp_path, note, signer.vkey))
    assert said.exit_code == 1
    assert said.output.startswith("NOT VALID: no signature by a known key")


def test_a_strangers_key_does_not_verify(signer: Signer, tmp_path: Path) -> None:
    """Another key under the same name is another key."""
    stranger = Signer("lethe.test/receipts", Ed25519PrivateKey.generate())
    assert say(*saved(tmp_path, signer.sign(a_receipt()), stranger.vkey)).exit_code == 1


@pytest.mark.parametrize(("closed_at", "evidence"), [("", "absent"), ("B", ""), ("B", "unknown"), ("B", "trust_me")])
def test_a_signed_receipt_that_leaves_a_copy_open_is_not_valid(
    signer: Signer, tmp_path: Path, closed_at: str, evidence: str
) -> None:
    """A signature does not make up for a copy of ours that is not said to be gone."""
    open_copy = CopyLine(
        domain="ours", holder="blob", what="upload", opened_at="A", closed_at=closed_at, evidence=evidence
    )
    said = say(*saved(tmp_path, signer.sign(a_receipt(copies=(open_copy,))), signer.vkey))
    assert said.exit_code == 1
    assert "does not say that this copy is gone: upload, encrypted" in said.output


def test_copies_at_providers_are_said_with_what_is_known(signer: Signer, tmp_path: Path) -> None:
    """What a provider may still have is never called gone."""
    there = CopyLine(
        domain="provider", holder="provider", what="upload", opened_at="A", closed_at="B", evidence="unknown"
    )
    said = say(*saved(tmp_path, signer.sign(a_receipt(copies=(there,))), signer.vkey))
    assert said.exit_code == 0
    assert "Sent to providers outside: 1 copy." in said.output
    assert "picture: nothing is known" in said.output


def test_every_word_of_evidence_has_words() -> None:
    """A new kind of evidence is not left unexplained."""
    assert set(EVIDENCE_WORDS) == set(Evidence)


def test_a_privacy_report_is_verified_too(signer: Signer, tmp_path: Path) -> None:
    """Its verdict is told; with one letter changed it is refused, and told as nothing."""
    report = PrivacyReport(began_at="2026-11-26T00:00:00Z", versions={}, encodings=["raw"], left_out=["nothing"])
    file, keys = tmp_path / "privacy-report.json", tmp_path / "keys"
    write(report, signer, file)
    keys.write_text(f"{signer.vkey}\n")
    said = say("verify", str(file), "--keys", str(keys))
    assert said.exit_code == 0
    assert "Valid." in said.output
    assert "void: this run proves nothing" in said.output
    file.write_text(file.read_text().replace('"void"', '"clean"'))
    said = say("verify", str(file), "--keys", str(keys))
    assert said.exit_code == 1
    assert "NOT VALID: no signature" in said.output
    assert "clean" not in said.output


def test_verify_wants_keys(signer: Signer, tmp_path: Path) -> None:
    """Without keys nothing can be verified, and a file without keys is said to be one."""
    arguments = saved(tmp_path, signer.sign(a_receipt()), "no key here")
    said = say(*arguments[:2])
    assert said.exit_code == 2
    assert "--keys FILE" in said.output
    said = say(*arguments)
    assert said.exit_code == 1
    assert "no receipt keys there" in said.output


def test_bytes_that_are_no_text_are_not_a_receipt(signer: Signer, tmp_path: Path) -> None:
    """A picture given by mistake is refused as a receipt, without a traceback."""
    arguments = saved(tmp_path, "", signer.vkey)
    (tmp_path / "receipt.txt").write_bytes(b"\xff\xd8\xff")
    assert say(*arguments).exit_code == 1


def test_a_parameter_is_a_pair(tmp_path: Path) -> None:
    """`-p scale` is refused before anything is sent."""
    said = say("submit", __file__, "-p", "scale", "--output", str(tmp_path / "x"), "--url", "http://127.0.0.1:9")
    assert said.exit_code == 2
    assert "NAME=VALUE" in said.output


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    """A server that does not answer is said to be one."""
    said = say("submit", __file__, "--output", str(tmp_path / "x"), "--url", "http://127.0.0.1:9")
    assert said.exit_code == 1
    assert "http://127.0.0.1:9 does not answer" in said.output


def test_the_readme_has_the_lines_that_up_prints() -> None:
    """The curl lines of the README are those that a test pastes into a shell."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for _, line in curl_lines("http://127.0.0.1:8080", Path("photo.jpg")):
        assert f"\n{line}\n" in readme


def test_a_pool_that_exists_but_is_led_to_by_no_route_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the shipped file nothing goes outside: a relay worker would wait for ever, and is told what is missing."""
    for name in ("POSTGRES_DSN", "REDIS_URL", "BLOBS_URL", "KEYHOLDER_SOCKET", "RECEIPT_KEY_FILE"):
        monkeypatch.setenv(f"LETHE_{name}", "x")
    said = say("work", "relay")
    assert said.exit_code == 1
    assert "no route of the shipped lethe.toml leads to a provider in the pool 'relay'; there is gpu" in said.output
    assert "LETHE_CONFIG_FILE" in said.output
