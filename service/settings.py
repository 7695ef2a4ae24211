"""The settings of the service, read from the environment variables `M3H_*`."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Device = Literal["auto", "cpu", "cuda"]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
CdsPrefetch = Literal["observations", "medications", "procedures", "reports", "documents", "media"]
LogLevel = Literal["debug", "info", "warning", "error"]

_INVALID_REDIS_URL = (
    "is not a Redis URL; use redis://, rediss:// or unix://, with :, /, ?, # and @ of the "
    "password percent-encoded (/ is %2F)"
)
MIN_SECRET_LENGTH = 16
_HOW_TO_GENERATE = "generate one with: openssl rand -hex 32"

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def environment_variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"M3H_{name.upper()}"


def available_cpus() -> int:
    """The number of CPUs that this process may use, by its affinity and its cgroup's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cgroup_quota()
    return max(1, min(allowed or 1, quota or allowed or 1))


def _cgroup_quota() -> int | None:
    """The number of whole CPUs that the cgroup's quota allows; None without a quota."""
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
    """All settings. An argument takes precedence over its environment variable."""

    model_config = SettingsConfigDict(env_prefix="M3H_", frozen=True, hide_input_in_errors=True)

    bundle: Path = Field(Path("bundles/m3h-open"), description="folder of the bundle to serve")
    host: str = Field(
        "127.0.0.1", description="IP address or host name to listen on; 0.0.0.0 for all interfaces"
    )
    port: int = Field(
        8000, ge=0, le=65535, description="TCP port of the service; 0 selects a free port"
    )
    admin_host: str = Field(
        "127.0.0.1", description="IP address or host name to listen on for /admin"
    )
    admin_port: int = Field(
        8001,
        ge=0,
        le=65535,
        description="TCP port for /admin; 0 selects a free port, and so does a default port that is"
        " in use",
    )
    mllp_host: str = Field(
        "127.0.0.1", description="IP address or host name to listen on for HL7 v2 over MLLP"
    )
    mllp_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="TCP port for HL7 v2 over MLLP; 0 selects a free port; default: no MLLP",
    )
    mllp_connections: int = Field(
        32, ge=1, description="maximum number of MLLP connections per worker; more are closed"
    )
    mllp_certificate: str | None = Field(
        None,
        description="PEM file with the certificate chain and private key of MLLP; default: no TLS",
    )
    mllp_client_ca: str | None = Field(
        None,
        description="PEM file with the authorities whose certificates MLLP clients must have; "
        "needs M3H_MLLP_CERTIFICATE",
    )
    device: Device = Field(
        "auto", description="where the model runs: cuda, cpu, or auto (cuda if a GPU is available)"
    )
    workers: int | None = Field(
        None, ge=1, description="number of worker processes; default: the number of available CPUs"
    )
    graphs: Literal["auto", "own", "shared"] = Field(
        "auto",
        description="own: each worker loads the model; shared: one process runs it for all workers;"
        " auto: shared on cuda, own on cpu",
    )
    graphs_seconds: float = Field(
        5.0,
        gt=0,
        description="time in seconds after which a shared graph process that does not respond is "
        "killed and replaced",
    )
    load_seconds: float = Field(
        300.0, gt=0, description="time limit in seconds for a process to load and verify a bundle"
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads of the model in each worker; default: the available CPUs divided "
        "by the workers",
    )
    root_path: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        description="path prefix under which a proxy publishes the service, such as /m3h; requests "
        "may include it or not",
    )
    max_body_bytes: int = Field(
        32 * 2**20, ge=1, description="maximum size of a request body, in bytes"
    )
    max_header_bytes: int = Field(
        32 * 2**10,
        ge=1024,
        description="maximum size of the request line and headers, in bytes; at most 100 headers "
        "are accepted",
    )
    max_connections: int = Field(
        1024,
        ge=8,
        description="maximum number of connections per worker, reduced if the limit of open files "
        "is lower; above it, idle connections are closed, then requests get 503",
    )
    head_seconds: float = Field(
        10.0, gt=0, description="time limit in seconds for the headers of a request to arrive"
    )
    body_seconds: float = Field(
        30.0,
        gt=0,
        description="time limit in seconds for the body of a request to arrive, independent of its "
        "deadline",
    )
    write_seconds: float = Field(
        30.0, gt=0, description="time limit in seconds for a client to read 64 KiB of a response"
    )
    allowed_hosts: Annotated[list[str] | None, NoDecode] = Field(
        None,
        description="host names that requests may use in the Host header, *.example.org for all "
        "subdomains; default: those of this machine if host is a loopback address, "
        "otherwise all",
    )
    cors_origins: Annotated[list[Origin], NoDecode] = Field(
        [],
        description="origins that browsers may call the service from (CORS), such as "
        "https://ehr.example; * for all",
    )
    cds_url: str | None = Field(
        None,
        pattern=r"^https?://[^/\s?#]+(/[A-Za-z0-9._~-]+)*$",
        description="URL under which clients reach the service, for the links of cards and the aud "
        "of tokens, such as https://m3h.example; default: cards have no links",
    )
    cds_point: Literal["alerts_5", "alerts_10", "sensitivity_80", "sensitivity_90"] = Field(
        "alerts_5",
        description="threshold from which on a task gets a card: the one with that many alerts per "
        "100 patients, or with that sensitivity in percent, in the report of the bundle",
    )
    cds_cards: int = Field(3, ge=1, description="maximum number of cards in one response")
    cds_repeat_minutes: int = Field(
        720,
        ge=0,
        description="time in minutes in which a card that has not changed is not shown again to "
        "the same user; 0 shows it on every call",
    )
    cds_prefetch: Annotated[list[CdsPrefetch], NoDecode] = Field(
        ["observations", "medications", "procedures", "reports", "documents", "media"],
        description="data that CDS Hooks clients must prefetch in addition to patient and "
        "encounter; leave out those that the client cannot provide",
    )
    cds_jwt_keys: str | None = Field(
        None,
        description="JSON file with the trusted issuers of CDS Hooks clients and their public keys;"
        " needs M3H_CDS_URL, and M3H_REDIS_URL or M3H_WORKERS=1; default: no authentication",
    )
    max_batch: int = Field(
        64, ge=1, description="maximum number of patients in one POST /predict/batch"
    )
    queue_ms: int = Field(
        2_000,
        ge=1,
        description="maximum estimated queue wait per worker, in milliseconds; above it, requests "
        "get 503",
    )
    queue_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="maximum total size of the request bodies in a worker, in bytes; bulk requests "
        "may use half of it",
    )
    deadline_ms: int = Field(
        10_000,
        ge=1,
        description="deadline of a request in milliseconds, if it has no M3H-Deadline-Ms header",
    )
    cache_bytes: int = Field(
        64 * 2**20,
        ge=0,
        description="memory of each worker for cached embeddings of notes, images and series, in "
        "bytes; 0 disables the cache",
    )
    redis_secret: SecretStr | None = Field(
        None,
        description="secret that signs the entries in Redis and the ids of cards; at least 16 "
        "characters, the same for all replicas",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="URL of a Redis that caches embeddings for all replicas: redis://, rediss:// or"
        " unix://",
    )
    redis_ms: int = Field(
        10,
        ge=1,
        description="time limit in milliseconds for one Redis request; a prediction makes at most "
        "two",
    )
    redis_keep_seconds: int = Field(
        86_400, ge=1, description="expiration time of a cache entry in Redis, in seconds"
    )
    golden_seconds: float = Field(
        60.0,
        gt=0,
        description="interval in seconds between golden requests, which check that the model still "
        "gives the expected answers",
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://.",
        description="URL of an OpenTelemetry collector that receives traces by OTLP over HTTP, such"
        " as http://collector:4318",
    )
    trace_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="fraction of requests to trace, from 0 to 1, if the caller sends no traceparent"
        " header",
    )
    drain_seconds: float = Field(
        2.0,
        ge=0,
        description="time in seconds after SIGTERM during which the service reports not ready and "
        "still accepts requests",
    )
    shutdown_seconds: int = Field(
        30, ge=0, description="time limit in seconds for running requests after the drain period"
    )
    log_level: LogLevel = Field(
        "info", description="lowest level to log: debug, info, warning or error"
    )

    @field_validator("redis_secret")
    @classmethod
    def _check_length(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError(f"needs at least {MIN_SECRET_LENGTH} characters; {_HOW_TO_GENERATE}")
        return secret

    @field_validator("allowed_hosts", "cors_origins", "cds_prefetch", mode="before")
    @classmethod
    def _parse_list(cls, value: object) -> object:
        """Accepts a JSON array or names separated by commas."""
        if not isinstance(value, str):
            return value
        with suppress(ValueError):  # [::1] is not JSON
            return json.loads(value)
        return [name.strip() for name in value.split(",") if name.strip()]

    @field_validator("redis_url")
    @classmethod
    def _check_redis(cls, url: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        """The error does not quote the URL, which may contain a password."""
        if url is not None:
            from redis import Redis  # noqa: PLC0415 - the import takes a tenth of a second

            try:
                Redis.from_url(url.get_secret_value())  # does not connect
            except ValueError:  # its message may quote the password
                raise ValueError(_INVALID_REDIS_URL) from None
            if "redis_secret" in others.data and others.data["redis_secret"] is None:
                raise ValueError(f"needs M3H_REDIS_SECRET as well; {_HOW_TO_GENERATE}")
        return url
