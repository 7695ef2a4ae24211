"""A Redis server, and replicas of the service that use it."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.service.cache.cached_answers import REDIS
from tests.service.conftest import Service
from tests.support.servers.redis_server import RedisServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path / "redis.sock")
    running.start()
    yield running
    if running.process is not None:
        running.process.send_signal(signal.SIGCONT)
    running.stop()


@pytest.fixture
def replica(serve, engine, server) -> Callable[[], Service]:
    # Long enough for a machine that is busy with other tests.
    return lambda **settings: serve(
        engine, **REDIS | {"redis_url": SecretStr(server.url)} | settings
    )
