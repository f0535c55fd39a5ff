"""Signatures of webhooks are those of Standard Webhooks, and a file that holds no good key is refused at start."""

from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.cli import main
from broker.notify.webhook_keys import WebhookKeys, load_webhook_keys, new_keys
from broker.settings import SettingsInvalid

# The answers that the authors of Standard Webhooks publish: one message, under a key of each kind.
MESSAGE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
SYMMETRIC = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
ASYMMETRIC = "whsk_" + "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
SIGNED_A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


def test_signatures_are_the_published_ones() -> None:
    """HMAC-SHA256 (v1) and Ed25519 (v1a), byte for byte; several keys sign side by side, in the order of the file."""
    assert WebhookKeys([SYMMETRIC]).sign(*MESSAGE) == SIGNED
    assert WebhookKeys([ASYMMETRIC]).sign(*MESSAGE) == SIGNED_A
    assert WebhookKeys([ASYMMETRIC, SYMMETRIC]).sign(*MESSAGE) == f"{SIGNED_A} {SIGNED}"


def test_made_keys_are_read_and_belong_together(tmp_path: Path) -> None:
    """What `lethe webhook-key` prints is a file of keys, and the public key that receivers check with."""
    secret, private, public = new_keys()
    file = tmp_path / "keys"
    file.write_text(f"{secret}\n\n{private}\n")

    first, second = load_webhook_keys(file).sign("m", 1, b"{}").split(" ")

    assert (first[:3], second[:4]) == ("v1,", "v1a,")
    key = Ed25519PublicKey.from_public_bytes(b64decode(public.removeprefix("whpk_")))
    key.verify(b64decode(second.removeprefix("v1a,")), b"m.1.{}")


def test_the_command_prints_them_once() -> None:
    """Three lines, each with a word for whom it is."""
    said = CliRunner().invoke(main, ["webhook-key"]).output.split()
    assert [word.partition("_")[0] for word in said if word.startswith("wh")] == ["whsec", "whsk", "whpk"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "secret", "whsec_", "whsec_%", "whsec_" + b64encode(bytes(23)).decode()),
        *("whsec_" + b64encode(bytes(65)).decode(), "whsk_" + b64encode(bytes(32)).decode()),
        *("whsk_" + b64encode(bytes(64)).decode(), "whpk_" + b64encode(bytes(32)).decode(), f"{SYMMETRIC}\nx", "é"),
    ],
)
def test_a_bad_file_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    """No key, a wrong length or prefix, a public key in its place, halves that do not belong together."""
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(SettingsInvalid, match="LETHE_WEBHOOK_KEYS_FILE") as caught:
        load_webhook_keys(file)
    held = text.partition("_")[2]
    assert not held or held not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The setting, not the path alone."""
    with pytest.raises(SettingsInvalid, match="LETHE_WEBHOOK_KEYS_FILE cannot be read"):
        load_webhook_keys(tmp_path / "none")
