"""`m3h-serve`: verify a bundle, then serve it."""

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
from service.settings import Settings, variable_of
from service.telemetry.logging import make_log, take_over

EXAMPLE = Path("examples/septic_shock.json")

# Headings of `--help`. A setting that is not named here stands under "Options".
_GROUPS = {
    "Model": (
        *("bundle", "device", "workers", "threads"),
        *("graphs", "graphs_seconds", "load_seconds"),
    ),
    "Network": (
        *("host", "port", "admin_host", "admin_port"),
        *("allowed_hosts", "cors_origins", "root_path"),
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
# Variables of the project's other tools.
_NO_SETTINGS = frozenset({"M3H_DATA", "M3H_SCREENSHOTS"})
_METAVARS: dict[Any, str] = {int: "<int>", float: "<float>", bool: "<true|false>", Path: "<path>"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def serve(context: typer.Context, **options: str | None) -> None:
    """Serve a bundle over HTTP, after its digests and its golden answers were verified.

    Each option is also a setting in the environment; the option goes before it.
    """
    given = {
        name: text
        for name, text in options.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    settings = _settings(given)
    log = make_log(settings.log_level, sys.stderr)
    take_over(log)
    for name, nearest in unknown_variables(os.environ):
        log.warning("unknown setting", variable=name, nearest=nearest)
    try:
        supervisor = Supervisor(settings, log)
    except BundleError as error:
        _exit(f"m3h-serve: {error}")
    fault = asyncio.run(supervisor.run(partial(_welcome, settings.host)))
    if fault is not None:
        _exit(f"m3h-serve: the bundle is not served: {fault}")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"m3h-serve {version('m3h')}")
        raise typer.Exit


def _signature() -> inspect.Signature:
    """The options of `serve`: `--version`, and each setting."""
    shown = typer.Option(
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
            inspect.Parameter("version", keyword, default=False, annotation=Annotated[bool, shown]),
            *(
                inspect.Parameter(
                    name,
                    keyword,
                    default=_text(field.get_default(call_default_factory=True)),
                    annotation=Annotated[str | None, _option(name, field)],
                )
                for name, field in Settings.model_fields.items()
            ),
        ]
    )


def _option(name: str, field: FieldInfo) -> Any:
    """Any text is taken: `Settings` alone decides what is valid."""
    return typer.Option(
        help=field.description,
        envvar=variable_of(name),
        metavar=_metavar(field.annotation),
        rich_help_panel=next((g for g, names in _GROUPS.items() if name in names), None),
    )


def _text(default: Any) -> str | None:
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
    """The `M3H_*` variables among `names` that no setting has, each with the nearest that is one.

    They are probably misspelled. Values are not looked at.
    """
    known = [variable_of(name) for name in Settings.model_fields]
    unknown = [
        name
        for name in sorted(names)
        if name.upper().startswith("M3H_") and name.upper() not in {*known, *_NO_SETTINGS}
    ]
    nearest = {name: get_close_matches(name.upper(), known, 1) for name in unknown}
    return [(name, nearest[name][0] if nearest[name] else None) for name in unknown]


def _settings(given: dict[str, Any]) -> Settings:
    """No message holds a value: it may be a password."""
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [
            f"{variable_of(str(e['loc'][0]))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        _exit("m3h-serve: " + "; ".join(faults))
    except SettingsError as error:
        # Raised for a list or a mapping that is no JSON; it names the field.
        _exit(f"m3h-serve: {error}")


def _exit(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(2)


def _welcome(host: str, serves: str, port: int) -> None:
    """Says where it listens, once it does."""
    name = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host  # noqa: S104
    url = f"http://{name}:{port}"
    body = f"@{EXAMPLE}"
    if not EXAMPLE.is_file():
        body = '{"as_of": "2026-01-02T12:00:00Z", "tabular": {"age": 67, "sex": "female"}}'
    text = f"""\
M3H serves {serves} at {url}
Open it in a browser, or try three things here:
  curl -s {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}
  curl -s {url}/tasks
  curl -s {url}/model-card"""
    print(text, flush=True)


serve.__signature__ = _signature()  # type: ignore[attr-defined]  # read by inspect
app.command()(serve)
