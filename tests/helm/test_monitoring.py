"""Queries of alerts, dashboard and runbook refer to existing metrics; every alert is tested."""

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
from tests.helm.chart import ALL_FEATURES, FOLDER, find_object, list_objects, render

GROUPS = yaml.safe_load((FOLDER / "files/alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
OBJECTIVES = [rule["labels"] for rule in RULES if "slo" in rule.get("labels", {})]
FIRE = Path(__file__).with_name("alerts_fire.yaml")
DASHBOARD = json.loads((FOLDER / "files/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# $__rate_interval is a variable of Grafana.
QUERIES = [
    target["expr"].replace("$__rate_interval", "5m")
    for panel in PANELS
    for target in panel["targets"]
]
REQUESTS = FOLDER.parent / "examples"
RUNBOOK = (FOLDER.parent / "docs/runbook.md").read_text()
RUNBOOK_QUERIES = [
    query
    for block in re.findall(r"```promql\n(.*?)```", RUNBOOK, re.DOTALL)
    for query in block.strip().split("\n\n")
]

TARGET_LABELS = {"namespace", "job", "pod"}  # added by Prometheus
# The test produces only some of the statuses.
UNCHECKED_LABELS = {"status"}
# Metrics of the kubelet, kube-state-metrics, Prometheus and dcgm-exporter, and their used labels.
EXTERNAL_METRICS = {
    "container_memory_working_set_bytes": {"container"},
    "kube_pod_container_resource_limits": {"container", "resource"},
    "up": set(),
} | {f"DCGM_FI_DEV_{field}": set() for field in ("GPU_UTIL", "FB_USED", "FB_FREE", "XID_ERRORS")}

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


@pytest.fixture(scope="module")
def families(bundle_dir, tmp_path_factory):
    """Returns the families of `/metrics` after some requests, with an unreachable Redis."""
    engine = Engine(Bundle.load(bundle_dir, "cpu", threads=1))
    engine.replay_golden()
    unreachable = f"unix://{tmp_path_factory.mktemp('redis')}/socket"
    settings = Settings(bundle=bundle_dir, redis_url=unreachable, redis_secret="x" * 16)
    metrics = Metrics()
    # TestClient bypasses the server, which counts refused connections.
    metrics.count_refused_connection("head_too_large")
    metrics.count_card("sepsis", "overridden", "contraindicated")  # as the feedback of a clinician
    with TestClient(create_app(engine, settings, metrics=metrics)) as client:
        payloads = [json.loads(path.read_text()) for path in sorted(REQUESTS.glob("*.json"))]
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
    """Returns the labels of all samples, by the sample's name."""
    labels = {}
    for family in families.values():
        for sample in family.samples:
            labels.setdefault(sample.name, []).append(sample.labels)
    return labels


def selectors(query):
    """Returns the metric's name and the label matchers of each selector of a query."""
    names_and_matchers = []

    def visit(expr):
        if isinstance(expr, promql_parser.VectorSelector):
            names_and_matchers.append((expr.name, list(expr.matchers.matchers)))

    promql_parser.walk(promql_parser.parse(query), visit)
    return names_and_matchers


def matches(matcher, labels):
    value = labels.get(matcher.name, "")
    if matcher.op in (MatchOp.Equal, MatchOp.NotEqual):
        return (value == matcher.value) is (matcher.op == MatchOp.Equal)
    full_match = re.fullmatch(matcher.value, value) is not None
    return full_match is (matcher.op == MatchOp.Re)


def check(query, samples):
    """Asserts that the metrics, labels and label values of a query exist."""
    for name, matchers in selectors(query):
        checked = [matcher for matcher in matchers if matcher.name not in TARGET_LABELS]
        if name in RECORDED:
            assert {matcher.name for matcher in checked} <= {"slo"}, query
            assert any(all(matches(m, labels) for m in checked) for labels in OBJECTIVES), query
        elif name in EXTERNAL_METRICS:
            assert {matcher.name for matcher in checked} <= EXTERNAL_METRICS[name], query
        else:
            assert name in samples, query
            assert {matcher.name for matcher in checked} <= samples[name][0].keys(), query
            by_value = [matcher for matcher in checked if matcher.name not in UNCHECKED_LABELS]
            assert any(all(matches(m, labels) for m in by_value) for labels in samples[name]), query


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *QUERIES, *RUNBOOK_QUERIES])
def test_every_query_is_valid_and_refers_to_existing_metrics(query, samples):
    check(query, samples)


def test_a_query_of_an_unknown_metric_or_label_is_detected(samples):
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


def test_every_metric_in_the_runbook_exists(samples):
    assert len(RUNBOOK_QUERIES) > len(ALERTS)
    named = set(re.findall(r"\b(?:m3h[_:][a-z0-9_:]+|DCGM_FI_\w+)", RUNBOOK)) - {"m3h:1:"}
    assert named <= samples.keys() | RECORDED | EXTERNAL_METRICS.keys()


def test_the_dashboard_shows_every_metric(families):
    shown = {name for query in QUERIES for name, _ in selectors(query)}
    for family in families.values():
        names = {family.name, f"{family.name}_total"}
        names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        assert names & shown, family.name


def test_every_recording_rule_is_used():
    used = {name for rule in RULES for name, _ in selectors(rule["expr"])}
    used |= {name for query in QUERIES for name, _ in selectors(query)}
    assert RECORDED - used == {"m3h_queue_depth"}  # used by the autoscaler


def test_every_alert_has_a_severity_and_annotations():
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
def test_alerts_fire_only_in_the_expected_cases():
    done = run_promtool("test", "rules", FIRE)
    assert done.returncode == 0, done.stdout + done.stderr


def run_promtool(*arguments):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def test_every_alert_has_a_firing_and_a_quiet_case():
    fired, quiet = set(), set()
    for case in yaml.safe_load(FIRE.read_text())["tests"]:
        for check in case.get("alert_rule_test", ()):
            (fired if check["exp_alerts"] else quiet).add(check["alertname"])
        for check in case.get("promql_expr_test", ()):
            for expected in check["exp_samples"]:
                if 'alertstate="firing"' in check["expr"] + expected["labels"]:
                    fired |= set(re.findall(r'alertname="(\w+)"', expected["labels"]))
    names = {rule["alert"] for rule in ALERTS}
    assert (fired, quiet) == (names, names)


def test_the_chart_renders_rules_and_dashboard_unchanged():
    objects = render(ALL_FEATURES)
    (rule,) = list_objects(objects, "PrometheusRule")
    assert rule["spec"]["groups"] == GROUPS
    (dashboard,) = [o for o in list_objects(objects, "ConfigMap") if "m3h.json" in o["data"]]
    assert json.loads(dashboard["data"]["m3h.json"]) == DASHBOARD
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_monitors_and_rules_have_the_labels_of_the_values():
    monitoring = {"serviceMonitor": True, "prometheusRule": True, "labels": {"release": "p"}}
    objects = render({"monitoring": monitoring | {"interval": "15s"}})
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert find_object(objects, kind)["metadata"]["labels"]["release"] == "p"
    (endpoint,) = find_object(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "15s"}


def test_the_autoscaler_uses_a_recorded_metric():
    metrics = find_object(render(ALL_FEATURES), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metrics[1]["pods"]["metric"]["name"] in RECORDED


def test_every_panel_has_a_unit_and_selects_its_service():
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            for _, matchers in selectors(target["expr"].replace("$__rate_interval", "5m")):
                labels = {matcher.name: matcher.value for matcher in matchers}
                assert (labels["namespace"], labels["job"]) == ("$namespace", "$job")


def test_panels_do_not_overlap():
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for panel in panels
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
