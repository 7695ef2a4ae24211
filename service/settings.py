"""Every setting of the service: one class, read from `M3H_*` in one place."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Device = Literal["auto", "cpu", "cuda"]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
LogLevel = Literal["debug", "info", "warning", "error"]

_NO_REDIS_URL = (
    "no URL of a Redis: redis://, rediss:// or unix://, with :, /, ?, # and @ of a password "
    "percent-encoded (/ is %2F)"
)
SHORTEST_SECRET = 16
_MAKE_ONE = "make one with: openssl rand -hex 32"

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"M3H_{name.upper()}"


def available_cpus() -> int:
    """Processors that this process may use: its affinity, within its control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_quota()
    return max(1, min(allowed or 1, quota or allowed or 1))


def _cgroup_quota() -> int | None:
    """Whole processors that the control group grants; None without a limit."""
    try:
        if _CGROUP_V2.is_file():
            quota, period = _CGROUP_V2.read_text(encoding="ascii").split()
        else:
            quota = (_CGROUP_V1 / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (_CGROUP_V1 / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if quota in ("max", "-1") else max(1, int(quota) // int(period))


class Settings(BaseSettings):
    """`M3H_BUNDLE`, `M3H_PORT`, … An argument given in code goes before the environment."""

    model_config = SettingsConfigDict(env_prefix="M3H_", frozen=True, hide_input_in_errors=True)

    bundle: Path = Field(Path("bundles/m3h-open"), description="folder of the bundle to serve")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    admin_host: str = Field("127.0.0.1", description="address to listen on for /admin")
    admin_port: int = Field(8001, ge=0, le=65535, description="port for /admin; 0 takes a free one")
    device: Device = Field("auto", description="cuda, cpu, or auto: cuda if there is one")
    workers: int | None = Field(
        None, ge=1, description="processes that serve; default: the processors at hand"
    )
    graphs: Literal["auto", "own", "shared"] = Field(
        "auto",
        description="own: each worker has the weights; shared: one process, for all of them; auto: "
        "shared on CUDA",
    )
    graphs_seconds: float = Field(
        5.0, gt=0, description="longest silence of the process of shared graphs before it is killed"
    )
    load_seconds: float = Field(
        300.0, gt=0, description="time that a process has to load and verify a bundle"
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="processor threads of each worker's model; default: the processors at hand, "
        "shared by the workers",
    )
    root_path: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        description="path under which a proxy has the service; /m3h. Requests may hold it or not",
    )
    max_body_bytes: int = Field(32 * 2**20, ge=1, description="largest request body")
    max_header_bytes: int = Field(
        32 * 2**10, ge=1024, description="largest head of a request; of at most 100 headers"
    )
    max_connections: int = Field(
        1024,
        ge=8,
        description="connections of a worker, if it may open as many files; beyond, idle "
        "connections are closed, then requests get 503",
    )
    head_seconds: float = Field(
        10.0, gt=0, description="longest time for the head of a request to arrive"
    )
    body_seconds: float = Field(
        30.0,
        gt=0,
        description="longest time for the body of a request to arrive, whatever its deadline",
    )
    write_seconds: float = Field(
        30.0, gt=0, description="longest time for a client to read 64 KiB of its answer"
    )
    allowed_hosts: Annotated[list[str] | None, NoDecode] = Field(
        None,
        description="names that the service may be addressed by, *.example.org for all below; "
        "default: those of this machine if host is a loopback address, else all",
    )
    cors_origins: Annotated[list[Origin], NoDecode] = Field(
        [],
        description="pages of other sites that may ask from a browser; https://ehr.example, or * "
        "for all",
    )
    max_batch: int = Field(64, ge=1, description="most items in one POST /predict/batch")
    queue_ms: int = Field(
        2_000, ge=1, description="time that those who wait in a worker may take; beyond: 503"
    )
    queue_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="bodies of all requests in a worker, together; of bulk, half of that",
    )
    deadline_ms: int = Field(
        10_000, ge=1, description="time for an answer if M3H-Deadline-Ms does not say"
    )
    cache_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="memory of each worker for what was made of notes, images and series",
    )
    redis_secret: SecretStr | None = Field(
        None,
        description="key of what is kept in Redis, which is not trusted: 16 characters or more, "
        "the same for all replicas",
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis in which all replicas keep that; redis://, rediss://, unix://"
    )
    redis_ms: int = Field(
        10, ge=1, description="longest wait for Redis, which a prediction asks once or twice"
    )
    redis_keep_seconds: int = Field(86_400, ge=1, description="how long Redis keeps an entry")
    golden_seconds: float = Field(
        60.0, gt=0, description="time from one golden request that is replayed to the next"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://.",
        description="OpenTelemetry collector that gets traces by OTLP over HTTP; "
        "http://collector:4318",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="share of requests that are traced if the caller does not say"
    )
    drain_seconds: float = Field(
        2.0, ge=0, description="time after SIGTERM in which it is not ready and still answers"
    )
    shutdown_seconds: int = Field(
        30, ge=0, description="time that running requests have after SIGTERM"
    )
    log_level: LogLevel = Field("info", description="debug, info, warning or error")

    @field_validator("redis_secret")
    @classmethod
    def _is_long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < SHORTEST_SECRET:
            raise ValueError(f"must have {SHORTEST_SECRET} characters or more; {_MAKE_ONE}")
        return secret

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _is_a_list(cls, value: object) -> object:
        """Text is a JSON array, or names with commas between them."""
        if not isinstance(value, str):
            return value
        with suppress(ValueError):  # [::1] is a name
            return json.loads(value)
        return [name.strip() for name in value.split(",") if name.strip()]

    @field_validator("redis_url")
    @classmethod
    def _is_of_redis(cls, url: SecretStr | None, before: ValidationInfo) -> SecretStr | None:
        """The error does not quote the URL: a password may be in it."""
        if url is not None:
            from redis import Redis  # noqa: PLC0415 - it takes a tenth of a second

            try:
                Redis.from_url(url.get_secret_value())  # opens nothing
            except ValueError:  # its message may quote the password
                raise ValueError(_NO_REDIS_URL) from None
            if "redis_secret" in before.data and before.data["redis_secret"] is None:
                raise ValueError(f"needs M3H_REDIS_SECRET as well; {_MAKE_ONE}")
        return url
