"""Alerts and dashboard ask for what the service tells, and the runbook says what to do then."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import MatchOp
from starlette.testclient import TestClient

from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.helm.chart import EVERYTHING, FOLDER, all_of, one, render

GROUPS = yaml.safe_load((FOLDER / "files/alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
OBJECTIVES = [rule["labels"] for rule in RULES if "slo" in rule.get("labels", {})]
FIRE = Path(__file__).with_name("alerts_fire.yaml")
DASHBOARD = json.loads((FOLDER / "files/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Grafana's variable for the distance of two readings.
QUERIES = [
    target["expr"].replace("$__rate_interval", "5m")
    for panel in PANELS
    for target in panel["targets"]
]
EXAMPLES = FOLDER.parent / "examples"
RUNBOOK = (FOLDER.parent / "docs/runbook.md").read_text()
ADVISED = [
    query
    for block in re.findall(r"```promql\n(.*?)```", RUNBOOK, re.DOTALL)
    for query in block.strip().split("\n\n")
]

OF_THE_TARGET = {"namespace", "job", "pod"}  # Prometheus adds them
# Which status is answered depends on what goes wrong; the code says which there are.
NOT_MADE = {"status"}
# What others tell: the kubelet, kube-state-metrics, Prometheus, and dcgm-exporter by default.
OF_OTHERS = {
    "container_memory_working_set_bytes": {"container"},
    "kube_pod_container_resource_limits": {"container", "resource"},
    "up": set(),
} | {f"DCGM_FI_DEV_{field}": set() for field in ("GPU_UTIL", "FB_USED", "FB_FREE", "XID_ERRORS")}

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not there (Debian: prometheus)"
)


@pytest.fixture(scope="module")
def families(bundle_dir, tmp_path_factory):
    """What `/metrics` tells after a few requests, and with a Redis that is not there."""
    engine = Engine(Bundle.load(bundle_dir, "cpu", threads=1))
    engine.replay_golden()
    nowhere = f"unix://{tmp_path_factory.mktemp('redis')}/nobody"
    settings = Settings(bundle=bundle_dir, redis_url=nowhere, redis_secret="x" * 16)
    counted = Metrics()
    counted.connection_refused("head_too_large")  # by the server, which is not between here
    with TestClient(create_app(engine, settings, counted=counted)) as client:
        payloads = [json.loads(path.read_text()) for path in sorted(EXAMPLES.glob("*.json"))]
        for payload in payloads:
            assert client.post("/predict", json=payload).status_code == 200
        assert client.post("/predict/batch", json={"items": [*payloads, {}]}).status_code == 200
        for path in ("/", "/page/app.js", "/health/ready", "/health/live", "/tim"):
            assert client.get(path).status_code == 200
        client.get("/metrics")
        text = client.get("/metrics").text
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.fixture(scope="module")
def samples(families):
    """The labels of each, by name."""
    found = {}
    for family in families.values():
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def selectors(query):
    """Of each: the metric's name, and what its labels must be."""
    found = []

    def visit(expr):
        if isinstance(expr, promql_parser.VectorSelector):
            found.append((expr.name, list(expr.matchers.matchers)))

    promql_parser.walk(promql_parser.parse(query), visit)
    return found


def holds(matcher, labels):
    value = labels.get(matcher.name, "")
    if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
        return (value == matcher.value) is (matcher.op == MatchOp.Equal)
    alike = re.fullmatch(matcher.value, value) is not None
    return alike is (matcher.op == MatchOp.Re)


def check(query, samples):
    """That something tells what is asked for, by names, labels and their values."""
    for name, matchers in selectors(query):
        asked = [matcher for matcher in matchers if matcher.name not in OF_THE_TARGET]
        if name in RECORDED:
            assert {matcher.name for matcher in asked} <= {"slo"}, query
            assert any(all(holds(m, labels) for m in asked) for labels in OBJECTIVES), query
        elif name in OF_OTHERS:
            assert {matcher.name for matcher in asked} <= OF_OTHERS[name], query
        else:
            assert name in samples, query
            assert {matcher.name for matcher in asked} <= samples[name][0].keys(), query
            told = [matcher for matcher in asked if matcher.name not in NOT_MADE]
            assert any(all(holds(m, labels) for m in told) for labels in samples[name]), query


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *QUERIES, *ADVISED])
def test_a_query_is_valid_and_asks_for_what_is_told(query, samples):
    check(query, samples)


def test_a_query_for_what_nobody_tells_is_found(samples):
    for query in (
        "m3h_request_total",
        'm3h_request_seconds_bucket{le="1"}',
        'm3h_stage_seconds_sum{stage="wait"}',
        'm3h_requests_total{code="503"}',
        'm3h:sli_error:ratio_rate1h{slo="speed"}',
        "DCGM_FI_DEV_GPU_TEMP",
    ):
        with pytest.raises(AssertionError):
            check(query, samples)


def test_the_runbook_names_what_is_told(samples):
    assert len(ADVISED) > len(ALERTS)
    named = set(re.findall(r"\b(?:m3h[_:][a-z0-9_:]+|DCGM_FI_\w+)", RUNBOOK)) - {"m3h:1:"}
    assert named <= samples.keys() | RECORDED | OF_OTHERS.keys()


def test_all_that_is_told_is_shown(families):
    shown = {name for query in QUERIES for name, _ in selectors(query)}
    for family in families.values():
        names = {family.name, f"{family.name}_total"}
        names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        assert names & shown, family.name


def test_what_is_recorded_is_asked_for():
    asked = {name for rule in RULES for name, _ in selectors(rule["expr"])}
    asked |= {name for query in QUERIES for name, _ in selectors(query)}
    assert RECORDED - asked == {"m3h_queue_depth"}  # by the autoscaler


def test_an_alert_says_how_bad_it_is_and_what_to_do():
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}


@promtool
def test_the_rules_are_valid():
    done = run_promtool("check", "rules", FOLDER / "files/alerts.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


@promtool
def test_alerts_fire_when_they_must_and_only_then():
    done = run_promtool("test", "rules", FIRE)
    assert done.returncode == 0, done.stdout + done.stderr


def run_promtool(*arguments):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def test_every_alert_is_made_to_fire_and_not_to():
    fired, quiet = set(), set()
    for case in yaml.safe_load(FIRE.read_text())["tests"]:
        for asked in case.get("alert_rule_test", ()):
            (fired if asked["exp_alerts"] else quiet).add(asked["alertname"])
        for asked in case.get("promql_expr_test", ()):
            for expected in asked["exp_samples"]:
                if 'alertstate="firing"' in asked["expr"] + expected["labels"]:
                    fired |= set(re.findall(r'alertname="(\w+)"', expected["labels"]))
    names = {rule["alert"] for rule in ALERTS}
    assert (fired, quiet) == (names, names)


def test_the_files_arrive_unchanged():
    objects = render(EVERYTHING)
    (rule,) = all_of(objects, "PrometheusRule")
    assert rule["spec"]["groups"] == GROUPS
    (dashboard,) = [o for o in all_of(objects, "ConfigMap") if "m3h.json" in o["data"]]
    assert json.loads(dashboard["data"]["m3h.json"]) == DASHBOARD
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_prometheus_finds_monitors_by_its_labels():
    monitoring = {"serviceMonitor": True, "prometheusRule": True, "labels": {"release": "p"}}
    objects = render({"monitoring": monitoring | {"interval": "15s"}})
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert one(objects, kind)["metadata"]["labels"]["release"] == "p"
    (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "15s"}


def test_the_autoscaler_asks_for_what_is_recorded():
    metrics = one(render(EVERYTHING), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metrics[1]["pods"]["metric"]["name"] in RECORDED


def test_a_panel_says_its_unit_and_of_which_service_it_is():
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            for _, matchers in selectors(target["expr"].replace("$__rate_interval", "5m")):
                asked = {matcher.name: matcher.value for matcher in matchers}
                assert (asked["namespace"], asked["job"]) == ("$namespace", "$job")


def test_no_panel_lies_over_another():
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
