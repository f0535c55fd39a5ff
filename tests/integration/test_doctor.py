"""`lethe doctor`: what is wrong is found, said in words, and what is right is not called wrong."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.client import Client
from broker.doctor.configuration import configuration, data
from broker.doctor.deployment import deployment
from broker.doctor.findings import Finding, Level
from broker.doctor.providers import hints_arrive, providers
from broker.doctor.stores import stores
from broker.notify.webhook_keys import new_keys
from broker.settings import Settings
from broker.wheels import MODEL_DIGESTS
from tests.app_store import Signer
from tests.relay import SECRET_VARIABLE, replicate, route, settings_with
from tests.stack import DATA, Servers
from tests.up_process import UpProcess, lethe, lethe_up, plain_environment


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    with lethe_up(tmp_path_factory.mktemp("up") / "stack") as process:
        yield process


def problems(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.level is Level.PROBLEM]


async def examine_stores(settings: Settings) -> list[Finding]:
    return [finding async for finding in stores(settings)]


async def examine_deployment(url: str) -> list[Finding]:
    return [finding async for finding in deployment(url, token="", seen_within_s=3.0)]


async def test_healthy_stores_have_no_problem(settings: Settings) -> None:
    """Every store is asked, and all is well."""
    findings = await examine_stores(settings)
    assert {finding.level for finding in findings} == {Level.OK}, findings
    said = " ".join(finding.what for finding in findings)
    assert all(word in said for word in ("Postgres", "newest version", "Redis", "keyholder", "shows that it is gone"))


async def test_each_silent_store_is_named(settings: Settings, tmp_path: Path) -> None:
    """A store that does not answer is a finding with a remedy, and does not keep the others from being asked."""
    (tmp_path / "file").touch()
    lost = msgspec.structs.replace(
        settings,
        postgres_dsn=f"postgresql://lethe@/lethe?host={tmp_path}",
        redis_url=f"unix://{tmp_path}/redis.sock",
        keyholder_socket=f"{tmp_path}/keyholder.sock",
        blobs_url=f"file://{tmp_path}/file/blobs",
    )
    findings = await examine_stores(lost)
    assert len(problems(findings)) == 4
    assert all(finding.mend for finding in findings)
    for name in ("Postgres", "Redis", "keyholder", "blob store"):
        assert any(name in what for what in problems(findings))


async def test_a_database_without_tables_is_to_be_migrated(servers: Servers, settings: Settings) -> None:
    """An empty database answers, and the remedy is `lethe migrate`."""
    await servers.databases.run_sql("CREATE DATABASE t_empty")
    try:
        findings = await examine_stores(
            msgspec.structs.replace(settings, postgres_dsn=servers.databases.dsn("t_empty"))
        )
    finally:
        await servers.databases.drop("t_empty")
    assert [finding.mend for finding in findings if finding.level is Level.PROBLEM] == ["run `lethe migrate`"]


def test_whole_weights_are_fine_and_truncated_ones_are_named(tmp_path: Path) -> None:
    """A weights file that is cut short is a problem with its name; a missing one keeps gpu workers away alone."""
    assert not problems(list(data(DATA)))
    models = tmp_path / "models"
    models.mkdir()
    cut, missing, *others = MODEL_DIGESTS
    for name in others:
        (models / name).symlink_to(DATA / "models" / name)
    (models / cut).write_bytes((DATA / "models" / cut).read_bytes()[:-1])
    findings = list(data(tmp_path))
    assert [cut in what for what in problems(findings)] == [True]
    assert [f.level for f in findings if missing in f.what] == [Level.WARNING]


def test_a_key_that_others_can_read_is_a_problem(settings: Settings) -> None:
    """The receipt key is for its owner alone."""
    path = Path(settings.receipt_key_file)
    path.write_bytes(bytes(32))
    path.chmod(0o644)
    assert names_problem(settings, "can be read by others")
    path.chmod(0o600)
    assert not problems(list(configuration(settings)))


def test_a_wrong_file_is_named_with_its_line(settings: Settings, tmp_path: Path) -> None:
    """lethe.toml and profile are examined as the processes would read them."""
    file = tmp_path / "lethe.toml"
    file.write_text("[provider.x]\nadapter = 'nobody'\n")
    wrong = msgspec.structs.replace(settings, config_file=str(file), profile="nowhere")
    found = problems(list(configuration(wrong)))
    assert any("lethe.toml:" in what for what in found)
    assert any("nowhere" in what for what in found)


async def test_a_healthy_deployment_has_no_problem(up: UpProcess) -> None:
    """Half a body and its bytes are seen by the broker, and the unfinished uploads are gone afterwards."""
    findings = await examine_deployment(up.url)
    assert not [finding for finding in findings if finding.level in {Level.PROBLEM, Level.WARNING}], findings
    said = " ".join(finding.what for finding in findings)
    assert "reaches the broker while it is being sent" in said
    assert "refused before it was sent whole" in said
    for _ in range(200):
        if not list((up.directory / "blobs").iterdir()):
            return
        await asyncio.sleep(0.02)
    pytest.fail("the unfinished upload of the examination is still there")


async def test_a_proxy_that_holds_bodies_back_is_found(up: UpProcess) -> None:
    """The same deployment behind a proxy that reads whole bodies first: both halves of the examination say so."""
    async with proxy(up.url, holds_back=True) as url:
        found = problems(await examine_deployment(url))
    assert len(found) == 2
    assert "a proxy holds it back" in found[0]
    async with proxy(up.url, holds_back=False) as url:
        assert not problems(await examine_deployment(url))


def test_a_dead_deployment_is_one_finding() -> None:
    """Nobody there: exit code 1 and a sentence, no traceback."""
    order = lethe("doctor", "--url", "http://127.0.0.1:9")
    said = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=30, check=False)
    assert said.returncode == 1
    assert "does not answer" in said.stdout
    assert not said.stderr


def test_this_machine_is_examined_without_settings(tmp_path: Path) -> None:
    """Without settings the machine and the data files are examined, for `lethe up`; missing weights are said."""
    order = lethe("doctor")
    run = subprocess.run(order, env=plain_environment(), capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 0, run.stdout
    assert "model weights are present and whole" in run.stdout
    bare = plain_environment(LETHE_DATA_DIR=str(tmp_path))
    run = subprocess.run(order, env=bare, capture_output=True, text=True, timeout=30, check=False)
    assert "`lethe up` does not start here" in run.stdout


@asynccontextmanager
async def proxy(upstream: str, *, holds_back: bool) -> AsyncGenerator[str]:
    """An HTTP proxy that passes a request on as it comes, or only when its whole body has come."""

    async def serve(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, onward = await asyncio.open_connection(urlsplit(upstream).hostname, urlsplit(upstream).port)
        answers = asyncio.create_task(pump(server, back))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await (requests(client, onward) if holds_back else pump(client, onward))
        for writer in (onward, back):
            writer.close()
        await asyncio.gather(answers, return_exceptions=True)

    async def accept(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(client, back)))

    serving: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*serving, return_exceptions=True)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while received := await reader.read(65_536):
        writer.write(received)
        await writer.drain()


async def requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0])) if lengths else b""
        writer.write(head + body)
        await writer.drain()


async def test_providers_are_examined_with_the_stores_at_hand(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What live workers run is asked of Postgres; nobody is there, and that is said once for the pool."""
    monkeypatch.setenv(SECRET_VARIABLE, "canary")
    asked = settings_with(settings, tmp_path, replicate("http://127.0.0.1:9") + route("upscale", "[{ replicate = 1 }]"))
    found = [finding async for finding in providers(asked)]
    assert problems(found) == ["no worker of the pool relay is alive, for replicate"]
    silent = msgspec.structs.replace(asked, postgres_dsn=f"postgresql://lethe@/lethe?host={tmp_path}")
    assert not problems([finding async for finding in providers(silent)])


async def test_a_proxy_that_keeps_hints_back_is_found(up: UpProcess) -> None:
    """A hint is answered by the broker; an answer of anybody else is a problem that names the path."""
    async with Client(up.url) as client:
        assert (await hints_arrive(client)).level is Level.OK
    async with Client(f"{up.url}/elsewhere") as client:
        found = await hints_arrive(client)
    assert found.level is Level.PROBLEM
    assert "/v1/hooks/ answers 404" in found.what


def names_problem(settings: Settings, words: str) -> bool:
    """Whether the configuration has a problem that says so."""
    return any(words in what for what in problems(list(configuration(settings))))


def see_key_file(settings: Settings, file: Path, *, setting: str, wrong: tuple[str, str], right: str) -> None:
    """A key file that is missing, holds something else (which is said), or is open to others is a problem."""
    assert names_problem(settings, f"{setting} cannot be read")
    content, words = wrong
    file.write_text(content)
    assert names_problem(settings, words)
    file.write_text(right)
    file.chmod(0o644)
    assert names_problem(settings, f"{file.name} can be read by others")
    file.chmod(0o600)
    assert not problems(list(configuration(settings)))


def test_what_signs_notifications_is_looked_at(settings: Settings, tmp_path: Path) -> None:
    """Each key file; without any, that is said."""
    file = tmp_path / "webhook.keys"
    named = msgspec.structs.replace(settings, webhook_keys_file=str(file))
    wrong, right = ("no key\n", "a line is whsec_"), "\n".join(new_keys()[:2])
    see_key_file(named, file, setting="LETHE_WEBHOOK_KEYS_FILE", wrong=wrong, right=right)
    account = msgspec.structs.replace(settings, fcm_account_file=str(file))
    assert names_problem(account, "no service account")
    apple = msgspec.structs.replace(settings, apns_key_file=str(file), apns_app_id="TEAM123456.app.example")
    assert names_problem(apple, "LETHE_APNS_KEY_FILE")
    assert any("nobody is told when a job ends" in finding.what for finding in configuration(settings))


def test_what_hashes_subjects_is_looked_at(settings: Settings, tmp_path: Path) -> None:
    """The key file; without one nothing is said."""
    file = tmp_path / "subject.key"
    named = msgspec.structs.replace(settings, subject_key_file=str(file))
    wrong = ("too short\n", "64 hex digits")
    see_key_file(named, file, setting="LETHE_SUBJECT_KEY_FILE", wrong=wrong, right="ab" * 32)
    assert any("subjects of sign-ins" in finding.what for finding in configuration(named))
    assert not any("subjects of sign-ins" in finding.what for finding in configuration(settings))


def test_what_checks_receipts_is_looked_at(settings: Settings, tmp_path: Path) -> None:
    """A root that is none, an account that is none, and products that the profile does not name."""
    root, signer = tmp_path / "root.cer", Signer("Root")
    root.write_bytes(b"none")
    named = msgspec.structs.replace(settings, app_store_root_file=str(root))
    assert names_problem(named, "LETHE_APP_STORE_ROOT_FILE cannot be read")
    root.write_bytes(signer.certificate.public_bytes(Encoding.DER))
    found = list(configuration(named))
    assert not problems(found)
    assert any("receipts of the App Store are checked" in finding.what for finding in found)
    assert any("names no [credits] products" in finding.what for finding in found)
    account = msgspec.structs.replace(settings, play_account_file=str(root))
    assert names_problem(account, "LETHE_PLAY_ACCOUNT_FILE cannot be read")
