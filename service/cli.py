"""`m3h-serve`: verifies a bundle, then serves it."""

import asyncio
import inspect
import os
import shlex
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from schemas.manifest import BundleError
from service.process.supervisor import Supervisor
from service.settings import Settings, environment_variable
from service.telemetry.logging import capture_all, make_log

_EXAMPLE = Path("examples/septic_shock.json")

# Sections of `--help`, with the settings of each.
_SECTIONS = {
    "Model": (
        *("bundle", "device", "workers", "threads"),
        *("graphs", "graphs_seconds", "load_seconds"),
    ),
    "Network": (
        *("host", "port", "admin_host", "admin_port"),
        *("allowed_hosts", "cors_origins", "root_path"),
    ),
    "HL7 v2 over MLLP": (
        *("mllp_host", "mllp_port", "mllp_connections"),
        *("mllp_certificate", "mllp_client_ca"),
    ),
    "CDS Hooks": (
        *("cds_url", "cds_jwt_keys", "cds_point"),
        *("cds_cards", "cds_repeat_minutes", "cds_prefetch"),
    ),
    "Limits": (
        *("max_body_bytes", "max_header_bytes", "max_connections"),
        *("head_seconds", "body_seconds", "write_seconds"),
        *("max_batch", "queue_ms", "queue_bytes", "deadline_ms"),
    ),
    "Cache": ("cache_bytes", "redis_secret", "redis_url", "redis_ms", "redis_keep_seconds"),
    "Observability": ("golden_seconds", "otlp_endpoint", "trace_ratio", "log_level"),
    "Shutdown": ("drain_seconds", "shutdown_seconds"),
}
# Environment variables of the project's other tools.
_OTHER_VARIABLES = frozenset({"M3H_DATA", "M3H_SCREENSHOTS"})
_METAVARS: dict[Any, str] = {int: "<int>", float: "<float>", bool: "<true|false>", Path: "<path>"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def serve(context: typer.Context, **options: str | None) -> None:
    """Verify the digests and the golden answers of a bundle, then serve it over HTTP.

    Each option is also an environment variable. The option takes precedence.
    """
    arguments = {
        name: text
        for name, text in options.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    settings = _parse_settings(arguments)
    log = make_log(settings.log_level, sys.stderr)
    capture_all(log)
    for name, nearest in unknown_variables(os.environ):
        log.warning("unknown setting", variable=name, nearest=nearest)
    try:
        supervisor = Supervisor(settings, log)
    except BundleError as error:
        _exit(f"m3h-serve: {error}")
    fault = asyncio.run(supervisor.run(partial(_print_address, settings.host)))
    if fault is not None:
        _exit(f"m3h-serve: cannot start: {fault}")
    try:
        sys.stderr.flush()
    except OSError:  # a full disk: Python would try again at exit, and end with status 120
        sys.stderr = None


def _print_version(value: bool) -> None:
    if value:
        print(f"m3h-serve {version('m3h')}")
        raise typer.Exit


def _signature() -> inspect.Signature:
    """The options of `serve`: `--version` and each setting."""
    option = typer.Option(
        "--version",
        callback=_print_version,
        is_eager=True,
        expose_value=False,
        help="Print the version and exit.",
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter("context", keyword, annotation=typer.Context),
            inspect.Parameter(
                "version", keyword, default=False, annotation=Annotated[bool, option]
            ),
            *(
                inspect.Parameter(
                    name,
                    keyword,
                    default=_format_default(field.get_default(call_default_factory=True)),
                    annotation=Annotated[str | None, _option(name, field)],
                )
                for name, field in Settings.model_fields.items()
            ),
        ]
    )


def _option(name: str, field: FieldInfo) -> Any:
    """Accepts any text, because `Settings` validates it."""
    return typer.Option(
        help=field.description,
        envvar=environment_variable(name),
        metavar=_metavar(field.annotation),
        rich_help_panel=next(s for s, names in _SECTIONS.items() if name in names),
    )


def _format_default(default: Any) -> str | None:
    if isinstance(default, (list, tuple)):
        return ",".join(map(str, default))
    return None if default is None else str(default)


def _metavar(annotation: Any) -> str:
    """`<int>` for `int | None`, `<auto|cpu>` for a Literal."""
    if get_origin(annotation) is Literal:
        return f"<{'|'.join(get_args(annotation))}>"
    if inner := get_args(annotation):
        return _metavar(inner[0])
    return _METAVARS.get(annotation, "<text>")


def unknown_variables(names: Iterable[str]) -> list[tuple[str, str | None]]:
    """The names M3H_* that no setting has, probably misspelled, each with the closest setting."""
    known = [environment_variable(name) for name in Settings.model_fields]
    unknown = [
        name
        for name in sorted(names)
        if name.upper().startswith("M3H_") and name.upper() not in {*known, *_OTHER_VARIABLES}
    ]
    return [(name, next(iter(get_close_matches(name.upper(), known, 1)), None)) for name in unknown]


def _parse_settings(arguments: dict[str, Any]) -> Settings:
    """Exits with a message if a setting is invalid. It quotes no value, which may be a password."""
    try:
        return Settings(**arguments)
    except ValidationError as error:
        messages = [
            f"{environment_variable(str(e['loc'][0]))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        _exit("m3h-serve: " + "; ".join(messages))
    except SettingsError as error:
        # Raised for invalid JSON; names the field.
        _exit(f"m3h-serve: {error}")


def _exit(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(2)


def _print_address(host: str, model: str, port: int) -> None:
    """Prints the service's URL and example requests."""
    is_local = host in ("0.0.0.0", "::", "127.0.0.1")  # noqa: S104 - compares, binds nothing
    name = "localhost" if is_local else host
    url = f"http://{name}:{port}"
    body = f"@{_EXAMPLE}"
    if not _EXAMPLE.is_file():
        body = '{"as_of": "2026-01-02T12:00:00Z", "tabular": {"age": 67, "sex": "female"}}'
    text = f"""\
M3H serves {model} at {url}
Open this address in a browser, or try:
  curl -s {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}
  curl -s {url}/tasks
  curl -s {url}/model-card"""
    print(text, flush=True)


serve.__signature__ = _signature()  # type: ignore[attr-defined]  # read by inspect
app.command()(serve)
