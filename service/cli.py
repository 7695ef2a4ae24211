"""`m3h-serve`: verify a bundle, then serve it."""

import logging
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import uvicorn
from pydantic import ValidationError

from schemas.manifest import BundleError
from service.app import create_app
from service.bundle import Bundle
from service.engine import Engine
from service.log import FromLibraries, make_log
from service.settings import Settings

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
    device: Annotated[str | None, _option("device")] = None,
    threads: Annotated[int | None, _option("threads")] = None,
    max_body_bytes: Annotated[int | None, _option("max_body_bytes")] = None,
    max_batch: Annotated[int | None, _option("max_batch")] = None,
    queue: Annotated[int | None, _option("queue")] = None,
    queue_bytes: Annotated[int | None, _option("queue_bytes")] = None,
    deadline_ms: Annotated[int | None, _option("deadline_ms")] = None,
    shutdown_seconds: Annotated[int | None, _option("shutdown_seconds")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
) -> None:
    """Serve a bundle over HTTP, after its digests and its golden answers were verified."""
    given = {name: value for name, value in locals().items() if value is not None}
    signal.signal(signal.SIGTERM, _stop)
    settings = _settings(given)
    log = make_log(settings.log_level, sys.stderr)
    logging.basicConfig(handlers=[FromLibraries(log)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    try:
        engine = Engine(Bundle.load(settings.bundle, settings.device, settings.threads))
        engine.replay_golden()
    except BundleError as error:
        _exit(f"m3h-serve: the bundle is not served: {error}")
    config = uvicorn.Config(
        create_app(engine, settings, log),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    _Announced(config, engine.bundle).run()


def _settings(given: dict[str, Any]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = [f"M3H_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        _exit("m3h-serve: " + "; ".join(faults))


def _exit(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(2)


def _stop(*_: object) -> NoReturn:
    """SIGTERM while starting, or once uvicorn has finished its requests and raises it again."""
    sys.exit(0)


class _Announced(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, bundle: Bundle) -> None:
        super().__init__(config)
        self._bundle = bundle

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = self.config.host
            everywhere = ("0.0.0.0", "::", "127.0.0.1")  # noqa: S104
            name = "localhost" if host in everywhere else host
            print(_welcome(self._bundle, f"http://{name}:{port}"), flush=True)


def _welcome(bundle: Bundle, url: str) -> str:
    manifest = bundle.manifest
    model = f"{manifest.name} {manifest.version} ({len(manifest.tasks)} tasks, {bundle.device})"
    body = f"@{EXAMPLE}"
    if not EXAMPLE.is_file():
        body = '{"as_of": "2026-01-02T12:00:00Z", "tabular": {"age": 67, "sex": "female"}}'
    return f"""\
M3H serves {model} at {url}
Three next things to try:
  curl -s {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}
  curl -s {url}/tasks
  curl -s {url}/model-card"""
