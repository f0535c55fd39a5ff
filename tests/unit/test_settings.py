"""Settings come from the environment, whole, or not at all."""

from pathlib import Path

import pytest

from broker.settings import MODEL_SLOTS, RELAY_SLOTS, Settings, SettingsInvalid, load_settings, resolve_secret

NEEDED = {
    "LETHE_POSTGRES_DSN": "postgresql://lethe:hunter2@db/lethe",
    "LETHE_REDIS_URL": "redis://:hunter2@redis/0",
    "LETHE_BLOBS_URL": "s3://bucket",
    "LETHE_KEYHOLDER_SOCKET": "/run/lethe/keyholder.sock",
    "LETHE_RECEIPT_KEY_FILE": "/var/lib/lethe/receipt.key",
}


def test_defaults_fill_in_the_rest() -> None:
    """Five variables are needed; numbers are read from text."""
    settings = load_settings({**NEEDED, "LETHE_SLOTS": "7", "LETHE_LEASE_S": "4.5"})

    assert (settings.slots, settings.lease_s) == (7, 4.5)
    assert settings.profile == "minimal"


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_variable_is_named(name: str) -> None:
    """Whoever starts Lethe without a variable is told which one."""
    with pytest.raises(SettingsInvalid, match=name):
        load_settings({key: value for key, value in NEEDED.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LETHE_SLOTS", "0"),
        ("LETHE_SLOTS", "many"),
        ("LETHE_LEASE_S", "1"),
        ("LETHE_UPLOAD_IDLE_S", "0"),
        ("LETHE_MAX_CRASHES", "-1"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: str) -> None:
    """A lease too short for its guard, no slots, no time: all refused at start, by name."""
    with pytest.raises(SettingsInvalid, match=name):
        load_settings({**NEEDED, name: value})


def test_the_message_shows_no_value() -> None:
    """What is refused may be a password in the wrong place."""
    with pytest.raises(SettingsInvalid) as caught:
        load_settings({**NEEDED, "LETHE_SLOTS": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_its_repr_shows_no_value() -> None:
    """Settings in a traceback tell no password."""
    assert "hunter2" not in repr(load_settings(NEEDED))
    assert "hunter2" not in str(load_settings(NEEDED))


def test_other_variables_are_left_alone() -> None:
    """The environment is full of other people's names."""
    assert isinstance(load_settings({**NEEDED, "PATH": "/bin", "LETHE_GUARD_FD": "7"}), Settings)


def test_slots_are_by_kind_of_worker_unless_they_are_set() -> None:
    """Waiting for a provider costs little, a model costs a machine; a number that is given holds for either."""
    settings = load_settings(NEEDED)
    assert (settings.slots_of(is_relay=False), settings.slots_of(is_relay=True)) == (MODEL_SLOTS, RELAY_SLOTS)
    assert (MODEL_SLOTS, RELAY_SLOTS) == (4, 2000)
    settings = load_settings({**NEEDED, "LETHE_SLOTS": "7"})
    assert (settings.slots_of(is_relay=False), settings.slots_of(is_relay=True)) == (7, 7)


def test_a_secret_is_where_its_reference_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a variable, or in a file whose line end does not count."""
    monkeypatch.setenv("ACME_KEY", "hunter2")
    file = tmp_path / "a key: one"
    file.write_text("hunter3\n")
    assert resolve_secret("env:ACME_KEY") == "hunter2"
    assert resolve_secret(f"file:{file}") == "hunter3"


def test_a_secret_that_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one, a missing one and one that cannot be read are the same; none is an error of its own."""
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("ABSENT", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for reference in ("env:EMPTY", "env:ABSENT", f"file:{tmp_path}/empty", f"file:{tmp_path}/binary"):
        assert resolve_secret(reference) is None
    assert resolve_secret(f"file:{tmp_path}/absent") is None
    assert resolve_secret(f"file:{tmp_path}") is None
