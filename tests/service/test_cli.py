"""The command `m3h-serve`: options, settings and error messages."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service import cli
from service.http.server.sockets import ListenError, listen, listen_for_admin
from service.settings import Settings
from service.telemetry.logging import make_log

SECRET = "hunter2"


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from service.cli import app; app()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"M3H_PORT": "tcp://10.0.0.1:8000"}, "M3H_PORT"),
        ({"M3H_BUNDLE": "/nowhere"}, "/nowhere is not a bundle"),
        ({"M3H_DEVICE": "abacus"}, "M3H_DEVICE"),
        ({"M3H_OTLP_ENDPOINT": "collector:4318"}, "M3H_OTLP_ENDPOINT"),
        ({"M3H_TRACE_RATIO": "2"}, "M3H_TRACE_RATIO"),
        ({"M3H_HOST": "no.such.host.invalid"}, "M3H_HOST cannot be resolved"),
        ({"M3H_HOST": "192.0.2.1"}, "M3H_HOST is not an address of this machine"),
        ({"M3H_ADMIN_HOST": "192.0.2.1"}, "M3H_ADMIN_HOST is not an address of this machine"),
        ({"M3H_REDIS_URL": "redis://:hunter2/x@redis:6379/0"}, "percent-encoded"),
        ({"M3H_REDIS_URL": "http://redis:6379/0"}, "redis://, rediss:// or unix://"),
    ],
)
def test_an_invalid_setting_is_named_in_one_line(environment, message):
    done = run(**{"M3H_ADMIN_PORT": "0"} | environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_shows_every_setting_with_its_variable_and_its_default():
    done = run("--help", COLUMNS="250", NO_COLOR="1")
    blocks = {
        match[1]: match[0]
        for match in re.finditer(r"(?ms)^│ --([\w-]+) .*?(?=^│ --|^╰|\Z)", done.stdout)
    }
    for name, field in Settings.model_fields.items():
        block = blocks[name.replace("_", "-")]
        assert f"[env var: M3H_{name.upper()}]" in block
        if field.default not in (None, []):
            assert f"[default: {cli._format_default(field.default)}]" in block
        assert field.description.split()[0] in block


def test_every_setting_has_a_section_in_help():
    grouped = [name for names in cli._SECTIONS.values() for name in names]
    assert sorted(grouped) == sorted(Settings.model_fields)


def test_version():
    assert run("--version").stdout == f"m3h-serve {version('m3h')}\n"


def test_an_option_takes_precedence_over_the_environment():
    done = run("--port", "70000", M3H_PORT="0")
    assert done.stderr == "m3h-serve: M3H_PORT: Input should be less than or equal to 65535\n"


# ------------------------------------------------------------------------ no value is ever printed


def texts_with_a_secret(name: str) -> st.SearchStrategy[str]:
    """Valid and invalid values of a setting that contain a secret, without NUL."""
    part = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
    anything = st.tuples(part, part).map(SECRET.join)
    if "url" not in name and "endpoint" not in name:
        return anything
    punctuation = st.text("/:?#@[]%&= 0", max_size=3)
    schemes = st.sampled_from(["redis", "rediss", "unix", "http", "https", "redi", ""])
    urls = st.builds(
        lambda scheme, a, b, c, d: f"{scheme}://{a}:{b}{SECRET}{c}@redis{d}",
        *(schemes, punctuation, punctuation, punctuation, punctuation),
    )
    queries = st.builds(
        lambda scheme, key: f"{scheme}://redis?{key}={SECRET}",
        schemes,
        st.sampled_from(["db", "port", "socket_timeout", "max_connections", "password", "ssl"]),
    )
    return anything | urls | queries


@pytest.mark.parametrize("name", Settings.model_fields)
@pytest.mark.parametrize("source", ["option", "environment"])
def test_no_value_of_a_setting_is_printed(name, source, monkeypatch, capsys):
    variable = f"M3H_{name.upper()}"

    @hypothesis_settings(max_examples=40, deadline=None, database=None)
    @given(texts_with_a_secret(name))
    def try_value(value: str) -> None:
        if source == "environment":
            monkeypatch.setenv(variable, value)
        with suppress(typer.Exit):
            cli._parse_settings({name: value} if source == "option" else {})
        printed = capsys.readouterr()
        assert printed.err == "" or printed.err.startswith(f"m3h-serve: {variable}: ")
        assert SECRET not in printed.err + printed.out

    try_value()


# -------------------------------------------------------------------------------- unknown variables


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("M3H_PROT", "M3H_PORT"),
        ("m3h_prot", "M3H_PORT"),
        ("M3H_REDISURL", "M3H_REDIS_URL"),
        ("M3H_DEADLINE", "M3H_DEADLINE_MS"),
        ("M3H_XYZZY", None),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_setting(variable, nearest):
    assert cli.unknown_variables([variable, "PATH"]) == [(variable, nearest)]


def test_variables_of_settings_and_of_other_tools_are_known():
    known = [f"M3H_{name.upper()}" for name in Settings.model_fields]
    assert cli.unknown_variables([*known, "m3h_port", "M3H_DATA"]) == []


def test_an_unknown_variable_is_a_warning_in_the_log(started):
    process, _ = started(M3H_PROT=SECRET)
    line = process.stderr.readline()
    expected = {"event": "unknown setting", "variable": "M3H_PROT", "nearest": "M3H_PORT"}
    assert json.loads(line).items() >= (expected | {"level": "warning"}).items()
    assert SECRET not in line


# ------------------------------------------------------------------------------------------- ports


@contextmanager
def port_in_use(host: str = "127.0.0.1") -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("variable", ["M3H_PORT", "M3H_ADMIN_PORT"])
def test_a_port_in_use_is_reported_with_its_setting(variable):
    with port_in_use() as port:
        free = {"M3H_PORT": "0", "M3H_ADMIN_PORT": "0"}
        done = run(**free | {variable: str(port)})
    assert done.returncode == 2
    assert done.stderr.endswith(f": port {port} is in use; set {variable}\n")
    assert done.stderr.count("\n") == 1


def test_a_port_of_an_option_is_never_replaced():
    with port_in_use() as port:
        done = run("--port", "0", "--admin-port", str(port))
    assert done.stderr.endswith(f": port {port} is in use; set M3H_ADMIN_PORT\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on every port")
def test_a_port_below_1024_is_refused_with_its_setting():
    with pytest.raises(ListenError, match="set M3H_PORT, to 1024 or above"):
        listen(Settings(port=1))


def test_the_service_listens_on_an_ipv6_address():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with port_in_use("::1") as port, pytest.raises(ListenError, match=f"port {port} is in use"):
        listen(Settings(host="::1", port=port))


@pytest.fixture
def default_admin_port(monkeypatch) -> Iterator[Callable[[int], None]]:
    """Changes the default of M3H_ADMIN_PORT, whose real default may be in use."""
    field = Settings.model_fields["admin_port"]

    def change(port: int) -> None:
        monkeypatch.setattr(field, "default", port)
        Settings.model_rebuild(force=True)

    yield change
    monkeypatch.undo()
    Settings.model_rebuild(force=True)


def test_a_second_service_takes_a_free_admin_port(default_admin_port, capsys):
    with port_in_use() as port:
        default_admin_port(port)
        settings = Settings(port=0)
        assert settings.admin_port == port
        with listen_for_admin(settings, make_log("info", sys.stderr)) as admin:
            assert admin.getsockname()[1] not in (0, port)
    assert f"port {port} is in use; set M3H_ADMIN_PORT" in capsys.readouterr().err


def test_two_services_on_one_machine_need_only_different_ports(bundle_dir: Path, tmp_path: Path):
    """The admin port stays at its default, even if another process uses it."""
    environment = {k: v for k, v in os.environ.items() if k != "M3H_ADMIN_PORT"}
    processes: list[subprocess.Popen[str]] = []
    command: list[Any] = [sys.executable, "-c", "from service.cli import app; app()"]
    try:
        for number in range(2):
            with (tmp_path / f"{number}").open("w") as log:
                processes.append(
                    subprocess.Popen(
                        [*command, "--bundle", bundle_dir, "--port", "0", "--workers", "1"],
                        env=environment,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                    )
                )
        for process in processes:
            url = process.stdout.readline().rpartition(" at ")[2].strip()
            assert httpx.get(f"{url}/health/ready", timeout=60).status_code == 200
    finally:
        for process in processes:
            process.kill()
            process.communicate()
