"""The settings in the chart equal those of `service.settings.Settings`."""

import json
import math

import pytest

from service.settings import Settings
from tests.helm.chart import (
    CASES,
    FOLDER,
    containers,
    environment,
    pod_templates,
    render,
    server_spec,
)

DERIVED = {"bundle", "redis_url", "redis_secret"}  # set by the values bundle and redis
FIELDS = sorted(Settings.model_fields.keys() - DERIVED)
SCHEMA = json.loads((FOLDER / "values.schema.json").read_text())["properties"]["settings"]


@pytest.fixture
def settings_of(monkeypatch):
    """Returns a function from the chart's values to the settings that the service reads."""

    def read(values, **secret):
        objects = render(values)
        (container,) = server_spec(objects)["containers"]
        variables = environment(objects, container) | secret
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return Settings()

    return read


@pytest.mark.parametrize("case", CASES)
def test_every_m3h_variable_in_a_pod_is_a_setting(case):
    objects = render(CASES[case])
    for owner, pod in pod_templates(objects):
        for container in containers(pod):
            for name in environment(objects, container):
                if name.startswith("M3H_"):
                    assert name.removeprefix("M3H_").lower() in Settings.model_fields, owner


def sample(field):
    """Returns a valid value that differs from the default."""
    schema = SCHEMA["properties"][field]
    if "enum" in schema:
        return next(v for v in schema["enum"] if v != Settings.model_fields[field].default)
    if "pattern" in schema:
        return {"root_path": "/m3h"}.get(field, "http://collector:4318")
    if "enum" in schema.get("items", {}):
        return schema["items"]["enum"][:1]
    samples = {"string": "127.0.0.9", "integer": 12_345, "number": 0.5}
    return (samples | {"array": ["https://ehr.example"]})[schema["type"]]


@pytest.mark.parametrize("field", FIELDS)
def test_every_setting_can_be_set(field, settings_of):
    value = sample(field)
    values = {"settings": {field: value}, "networkPolicy": {"enabled": False}}
    assert getattr(settings_of(values), field) == value


def test_a_large_integer_is_not_written_as_a_float(settings_of):
    assert settings_of({"settings": {"cache_bytes": 2**40}}).cache_bytes == 2**40


def test_the_schema_has_the_types_and_ranges_of_the_settings():
    declared = Settings.model_json_schema()["properties"]
    for field in FIELDS:
        facts = declared[field]
        facts = facts | (facts["anyOf"][0] if "anyOf" in facts else {})
        for name in ("anyOf", "default", "description", "title"):
            facts.pop(name, None)
        described = SCHEMA["properties"][field]
        assert described == facts | {"description": described["description"]}, field
    assert SCHEMA["properties"].keys() == set(FIELDS)
    assert SCHEMA["additionalProperties"] is False


@pytest.mark.parametrize("case", CASES)
def test_the_service_accepts_the_settings_of_the_chart(case, settings_of):
    secret = {"M3H_REDIS_URL": "rediss://:x@redis:6380/0", "M3H_REDIS_SECRET": "x" * 16}
    secret = secret if "three" in case else {}
    settings = settings_of(CASES[case], **secret)
    assert (settings.host, settings.admin_host) == ("0.0.0.0", "127.0.0.1")
    assert settings.device == ("cuda" if CASES[case].get("gpu") else "cpu")
    assert settings.redis_url is not None or not CASES[case].get("redis")


@pytest.mark.parametrize(
    ("bundle", "folder"),
    [
        ({}, "/app/bundles/m3h-open"),
        ({"source": "pvc", "claim": "m3h", "path": "runs/mine"}, "/bundles/runs/mine"),
        ({"source": "url", "url": "https://x/y", "sha256": "0" * 64}, "/bundles/m3h-open"),
    ],
)
def test_the_bundle_setting_follows_the_source(bundle, folder, settings_of):
    values = {"bundle": bundle, "networkPolicy": {"allowTo": [{"to": []}]}}
    assert str(settings_of(values).bundle) == folder


def test_the_grace_period_covers_drain_and_shutdown():
    for drain, shutdown in ((0, 0), (2.5, 30), (60, 600)):
        values = {"settings": {"drain_seconds": drain, "shutdown_seconds": shutdown}}
        spec = server_spec(render(values))
        # The supervisor kills a hung worker 7 seconds after the drain and shutdown periods.
        assert spec["terminationGracePeriodSeconds"] >= math.ceil(drain) + shutdown + 7 + 5
        assert "lifecycle" not in spec["containers"][0]
