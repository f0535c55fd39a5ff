"""What holds for the repository as a whole: import rules, pinned packages, commands, proxies that keep nothing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "workers", "providers", "policies")
PINNED = re.compile(r"[A-Za-z0-9][^\s=]*==\S+( ; .+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+(    #.*\n)*")
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Check the import rules of the tree in a folder."""
    command = [LINT_IMPORTS, "--no-cache"]
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)


def directives(name: str) -> str:
    """A configuration in deploy/ without its comments and with single spaces."""
    lines = (line.partition("#")[0].split() for line in (ROOT / "deploy" / name).read_text().splitlines())
    return "\n".join(" ".join(words) for words in lines if words)


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("broker/new_thing.py", "", "new_thing"),
        ("broker/sweep.py", "import workers.runner", "broker.sweep -> workers.runner"),
        ("broker/jobs.py", "import broker.intake", "broker.jobs -> broker.intake"),
        ("policies/limits.py", "import broker.jobs", "policies.limits -> broker.jobs"),
        ("broker/sniff.py", "import PIL", "broker.sniff -> PIL"),
        ("workers/images/decode.py", "import broker.settings", "workers.images.decode -> broker.settings"),
    ],
)
def test_imports_point_one_way(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    """The tree obeys the rules, and an import against them, or a module that is not on the map, is named."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert lint(tmp_path).returncode == 0
    with (tmp_path / file).open("a") as module:
        module.write(f"{line}\n")
    answer = lint(tmp_path)
    assert answer.returncode != 0
    assert complaint in answer.stdout


@pytest.mark.parametrize("name", ["run.txt", "dev.txt", "fuzz.txt", "data.txt", "peers.txt", "bench.txt"])
def test_every_package_is_pinned_by_hash_and_names_no_host(name: str) -> None:
    """What is installed is what was tested, wherever an operator gets packages from."""
    text = (ROOT / "requirements" / name).read_text()
    pins = re.findall(r"^(?![#\s]).+\n(?:[ ].+\n)*", text, re.MULTILINE)
    assert pins
    assert [pin for pin in pins if not PINNED.fullmatch(pin)] == []
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_ci_runs_what_everybody_runs() -> None:
    """`.ci/run` calls `make test`; that is `make check` (format, lint, types, imports) and every test."""
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec make test"
    makefile = (ROOT / "Makefile").read_text()
    whole = "-m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder"
    assert re.search(rf"^test: check .*\n\t\$\(PYTHON\) {re.escape(whole)}$", makefile, re.MULTILINE)
    check = makefile[makefile.index("\ncheck:") : makefile.index("\nfmt:")]
    assert all(tool in check for tool in ("ruff format --check", "ruff check", "basedpyright", "lint-imports"))


@pytest.mark.parametrize(
    ("name", "wanted", "unwanted"),
    [
        (
            "nginx.conf",
            ["proxy_request_buffering off;", "proxy_buffering off;", "proxy_max_temp_file_size 0;", "access_log off;"],
            ["proxy_request_buffering on;", "client_body_in_file_only", "proxy_store", "proxy_cache_path"],
        ),
        ("Caddyfile", ["flush_interval -1"], ["request_buffers", "response_buffers", "buffer_requests"]),
        ("haproxy.cfg", ["mode http"], ["option http-buffer-request", "log ", "option httplog"]),
    ],
)
def test_proxies_keep_no_body(name: str, wanted: list[str], unwanted: list[str]) -> None:
    """The configurations stream bodies in both directions and log no client."""
    text = directives(name)
    assert [line for line in wanted if line not in text.splitlines()] == []
    assert [word for word in unwanted if any(line.startswith(word) for line in text.splitlines())] == []


@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg"])
def test_proxies_believe_no_client_about_its_address(name: str) -> None:
    """X-Forwarded-For is replaced, so that nobody escapes a limit by making addresses up."""
    text = directives(name)
    assert "$proxy_add_x_forwarded_for" not in text
    assert "option forwardfor" not in text
    assert re.search(r"X-Forwarded-For (\$remote_addr|%\[src\])", text)
