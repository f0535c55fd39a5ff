"""A URL that a provider gives leads where it may, or nowhere: not into our network, not to others, not on redirect."""

import datetime
import os
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.base import Output
from providers.download import Downloader, DownloadRules
from providers.failures import FailureKind, ProviderFailure
from tests.delivery import OTHER, PUBLIC, PUBLIC_V6, Delivery, Internet, Page, answers, output_memories

PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)
RULES = DownloadRules(
    base_url="https://api.example.com/v1", hosts=("files.example.com", "*.replicate.delivery"), timeout_s=20.0
)
URL = "https://files.example.com/out.png"
NAME = "gpu.example.com"


@pytest.fixture
async def delivery() -> AsyncGenerator[Delivery]:
    async with Delivery({"/out.png": Page(body=PNG)}).running() as server:
        yield server
    assert output_memories() == []


@pytest.fixture
async def internet(delivery: Delivery) -> AsyncGenerator[Internet]:
    yield (net := Internet({PUBLIC: delivery, PUBLIC_V6: delivery, OTHER: delivery}))
    await net.aclose()


async def fetch(url: str, internet: Internet | None, *turns: str, rules: DownloadRules = RULES) -> str:
    """Fetch, check, close; return the code of a failure, or nothing."""
    resolve, _ = answers(*(turns or (PUBLIC,)))
    return await outcome(Downloader(rules, resolve=resolve, transport=internet), url)


async def outcome(downloader: Downloader, url: str) -> str:
    try:
        fetched = await downloader.fetch(Output(url=url))
    except ProviderFailure as failure:
        wanted = FailureKind.BAD_OUTPUT if failure.detail.startswith("output_") else FailureKind.NETWORK
        return failure.detail if failure.kind is wanted else str(failure)
    finally:
        await downloader.aclose()
    assert os.pread(fetched.fd, fetched.size_bytes, 0) == PNG
    os.close(fetched.fd)
    return ""


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://api.example.com/out.png",
        "https://a.replicate.delivery/out.png",
        "https://a.b.replicate.delivery:443/out.png",
        "HTTPS://FILES.EXAMPLE.COM/out.png",
        "https://files\u3002example.com/out.png",  # an ideographic full stop separates labels too
    ],
)
async def test_named_hosts_are_asked(internet: Internet, url: str) -> None:
    """Hosts on the list, what ends in a listed suffix, and the provider's own host deliver."""
    assert await fetch(url, internet) == ""
    assert internet.reached == [PUBLIC]


@pytest.mark.parametrize(
    "url",
    [
        *("https://evilreplicate.delivery/x", "https://replicate.delivery/x", "https://replicate.delivery.evil.com/x"),
        *("https://example.com/x", "https://x.files.example.com/x", "https://files.example.com./x"),
        *("https://files.example.com@evil.com/x", "https://evil.com\\@files.example.com/x"),
        *("https://key@files.example.com/x", "https://u:p@files.example.com/x", "https://evil.com#@files.example.com/"),
        *("https://files.example.com:8443/x", "https://files.example.com:80/x", "https://api.example.com:22/x"),
        *("http://files.example.com/x", "ftp://files.example.com/x", "file:///etc/passwd", "//files.example.com/x"),
        *("https://files.example.com%2eevil.com/x", "https://files.example.com%00.replicate.delivery/x"),
        *("https://127.0.0.1/x", "https://[::1]/x", "https://2130706433/x", "https://169.254.169.254/latest"),
        *("https://f\u0131les.example.com/x", "https://xn--fles-nza.example.com/x", "https://\uff46iles.example.com/x"),
        *("https:///x", "https://", "x", "https://files.example.com:port/x", "https://[files.example.com/x"),
        *("https://files.example.com/\n", "https://files.example.com/" + "x" * 70_000, "https://\ud800/x"),
    ],
)
async def test_other_hosts_are_not_even_resolved(internet: Internet, url: str) -> None:
    """A host that is not named, however it is dressed up, is neither looked up nor reached."""
    resolve, asked = answers(PUBLIC)
    with pytest.raises(ProviderFailure) as caught:
        await Downloader(RULES, resolve=resolve, transport=internet).fetch(Output(url=url))
    assert (caught.value.kind, caught.value.detail) == (FailureKind.BAD_OUTPUT, "output_host")
    assert (asked, internet.reached) == ([], [])


async def test_a_name_is_resolved_once_and_the_address_is_pinned(internet: Internet) -> None:
    """A name that turns private after it was checked gains nothing: nobody looks a second time."""
    resolve, asked = answers(PUBLIC, "127.0.0.1")
    downloader = Downloader(RULES, resolve=resolve, transport=internet)
    os.close((await downloader.fetch(Output(url=URL))).fd)
    assert (asked, internet.reached, internet.names) == (["files.example.com"], [PUBLIC], ["files.example.com"])
    with pytest.raises(ProviderFailure, match="output_address"):
        await downloader.fetch(Output(url=URL))
    assert internet.reached == [PUBLIC]


@pytest.mark.parametrize(
    "found",
    [
        *("127.0.0.1", "10.0.0.5", "169.254.169.254", "0.0.0.0", "100.100.100.200", "224.0.0.1"),
        *("::1", "::ffff:10.0.0.5", "fe80::1%lo", "fd00::1", "64:ff9b::a00:5", "2002:a00:5::", "::"),
        *(f"{PUBLIC} 10.0.0.5", f"{PUBLIC_V6} ::1", f"10.0.0.5 {PUBLIC}"),
    ],
)
async def test_private_addresses_are_not_reached(internet: Internet, found: str) -> None:
    """A listed name at a private address is refused, also where a public one stands beside it."""
    assert await fetch(URL, internet, found) == "output_address"
    assert internet.reached == []


async def test_ipv6_is_used_and_the_next_address_where_one_is_dead(internet: Internet) -> None:
    """Addresses are tried in the resolver's order; none that answers is a failure of the network."""
    assert await fetch(URL, internet, PUBLIC_V6) == ""
    assert await fetch(URL, internet, f"2606:4700::1 {PUBLIC}") == ""
    assert internet.reached == [PUBLIC_V6, "2606:4700::1", PUBLIC]
    assert await fetch(URL, internet, "2606:4700::1 8.8.8.8") == "ConnectError"
    assert internet.reached[3:] == ["2606:4700::1", "8.8.8.8"]


async def test_a_name_without_an_address_is_a_failure_of_the_network(internet: Internet) -> None:
    """No answer, or an error of the resolver, is NETWORK."""

    async def broken(host: str, port: int) -> list[str]:
        raise OSError(-2, host)

    assert await fetch(URL, internet, "") == "unresolved"
    with pytest.raises(ProviderFailure, match="network: OSError"):
        await Downloader(RULES, resolve=broken, transport=internet).fetch(Output(url=URL))


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("/out.png", ""),
        ("//a.replicate.delivery/out.png", ""),
        ("https://evil.com/out.png", "output_redirect"),
        ("http://files.example.com/out.png", "output_redirect"),
        ("https://files.example.com:8443/out.png", "output_redirect"),
        ("https://user@files.example.com/out.png", "output_redirect"),
        ("http://169.254.169.254/latest/meta-data", "output_redirect"),
        ("file:///etc/passwd", "output_redirect"),
        ("data:image/png;base64,iVBORw0KGgo=", "output_redirect"),
        ("https://[", "output_redirect"),
        ("/again", "output_redirect"),
    ],
)
async def test_redirects_are_checked_like_urls(
    delivery: Delivery, internet: Internet, location: str, code: str
) -> None:
    """A redirect leads to a named host by HTTPS, or nowhere; a circle ends."""
    delivery.pages["/again"] = Page(status=307, headers={"location": location})
    assert await fetch("https://files.example.com/again", internet) == code
    assert len(delivery.heads) == (4 if location == "/again" else 1 + (code == ""))


async def test_a_redirect_to_a_private_address_is_refused(delivery: Delivery, internet: Internet) -> None:
    """The address behind a redirect is checked as well, even under the same name."""
    delivery.pages["/again"] = Page(status=302, headers={"location": "/out.png"})
    assert await fetch("https://files.example.com/again", internet, PUBLIC, "10.0.0.5") == "output_address"
    assert delivery.paths == ["/again"]


@pytest.mark.parametrize(("hops", "code"), [(3, ""), (4, "output_redirect")])
async def test_three_redirects_are_followed(delivery: Delivery, internet: Internet, hops: int, code: str) -> None:
    """Three, and no fourth; one without a destination is an error at once."""
    for n in range(hops):
        location = f"/{n + 1}" if n + 1 < hops else "/out.png"
        delivery.pages[f"/{n}"] = Page(status=301, headers={"location": location})
    delivery.pages["/none"] = Page(status=302)
    assert await fetch("https://files.example.com/0", internet) == code
    assert await fetch("https://files.example.com/none", internet) == "output_redirect"


@given(st.one_of(st.text(), st.text().map("https://{}".format), st.from_regex(r"https?://[^/]*files\.example\.com.*")))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_is_a_failure_and_nothing_else(internet: Internet, text: str) -> None:
    """Whatever a provider calls a URL, only ProviderFailure comes of it, and nothing private is reached."""
    if text:
        assert await fetch(text, internet, "10.0.0.5") in {"output_host", "output_address"}
    assert internet.reached == []


async def test_our_own_server_may_be_private_and_plain(delivery: Delivery) -> None:
    """Where the provider is ours, exactly its own scheme, host and port may be local; a neighbour's may not."""
    local = DownloadRules(base_url=f"{delivery.url}/api", is_local=True, hosts=("files.example.com",))
    assert await fetch(f"{delivery.url}/out.png", None, "127.0.0.1", rules=local) == ""
    remote = DownloadRules(base_url=local.base_url)
    assert await fetch(f"{delivery.url}/out.png", None, "127.0.0.1", rules=remote) == "output_host"
    for url in (f"http://127.0.0.1:{delivery.port + 1}/", f"https://127.0.0.1:{delivery.port}/", "http://localhost/"):
        assert await fetch(url, None, "127.0.0.1", rules=local) in {"output_host", "output_address"}
    assert await fetch(URL, None, "127.0.0.1", rules=local) == "output_address"


@pytest.mark.parametrize(("certified", "code"), [(NAME, ""), ("other.example.com", "ConnectError")])
async def test_the_certificate_is_checked_for_the_name(tmp_path: Path, certified: str, code: str) -> None:
    """Although the connection goes to an address, the certificate has to be that of the name."""
    server_tls, client_tls = certificate(tmp_path, certified)
    async with Delivery({"/out.png": Page(body=PNG)}).running(server_tls) as delivery:
        base_url = f"https://{NAME}:{delivery.port}"
        rules = DownloadRules(base_url=base_url, is_local=True)
        downloader = Downloader(rules, resolve=answers("127.0.0.1")[0], tls=client_tls)
        assert await outcome(downloader, f"{base_url}/out.png") == code


@pytest.mark.parametrize(
    "host", ["*", "*.com", "*.*.com", "https://a.com", "a.com:443", "a.com/", "A.com", "ä.com", ""]
)
def test_a_rule_that_does_not_mean_what_it_says_is_refused(host: str) -> None:
    """Patterns are names or "*." before at least two labels, nothing else."""
    with pytest.raises(ValueError, match="no host name"):
        DownloadRules(base_url="https://api.example.com", hosts=(host,))


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for a name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = made.public_bytes(serialization.Encoding.PEM)
    file = folder / "server.pem"
    file.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, *plain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())
