"""`m3h-serve`: verify a bundle, then serve it."""

import asyncio
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from schemas.manifest import BundleError
from service.log import make_log
from service.settings import Settings
from service.supervisor import Supervisor

EXAMPLE = Path("examples/septic_shock.json")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _option(name: str) -> Any:
    field = Settings.model_fields[name]
    return typer.Option(help=f"{field.description} (M3H_{name.upper()})")


@app.command()
def serve(
    *,
    bundle: Annotated[Path | None, _option("bundle")] = None,
    host: Annotated[str | None, _option("host")] = None,
    port: Annotated[int | None, _option("port")] = None,
    admin_host: Annotated[str | None, _option("admin_host")] = None,
    admin_port: Annotated[int | None, _option("admin_port")] = None,
    device: Annotated[str | None, _option("device")] = None,
    workers: Annotated[int | None, _option("workers")] = None,
    graphs: Annotated[str | None, _option("graphs")] = None,
    threads: Annotated[int | None, _option("threads")] = None,
    max_body_bytes: Annotated[int | None, _option("max_body_bytes")] = None,
    max_batch: Annotated[int | None, _option("max_batch")] = None,
    queue_ms: Annotated[int | None, _option("queue_ms")] = None,
    queue_bytes: Annotated[int | None, _option("queue_bytes")] = None,
    deadline_ms: Annotated[int | None, _option("deadline_ms")] = None,
    cache_bytes: Annotated[int | None, _option("cache_bytes")] = None,
    redis_url: Annotated[str | None, _option("redis_url")] = None,
    redis_ms: Annotated[int | None, _option("redis_ms")] = None,
    redis_keep_seconds: Annotated[int | None, _option("redis_keep_seconds")] = None,
    golden_seconds: Annotated[float | None, _option("golden_seconds")] = None,
    otlp_endpoint: Annotated[str | None, _option("otlp_endpoint")] = None,
    trace_ratio: Annotated[float | None, _option("trace_ratio")] = None,
    drain_seconds: Annotated[float | None, _option("drain_seconds")] = None,
    shutdown_seconds: Annotated[int | None, _option("shutdown_seconds")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
) -> None:
    """Serve a bundle over HTTP, after its digests and its golden answers were verified."""
    given = {name: value for name, value in locals().items() if value is not None}
    settings = _settings(given)
    log = make_log(settings.log_level, sys.stderr)
    try:
        supervisor = Supervisor(settings, log)
    except BundleError as error:
        _exit(f"m3h-serve: {error}")
    fault = asyncio.run(supervisor.run(partial(_welcome, settings.host)))
    if fault is not None:
        _exit(f"m3h-serve: the bundle is not served: {fault}")


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [f"M3H_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        _exit("m3h-serve: " + "; ".join(faults))


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
