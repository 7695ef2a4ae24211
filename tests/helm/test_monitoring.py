"""Alerts and dashboard ask for what the service tells."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from service.metrics import Metrics
from tests.helm.chart import EVERYTHING, FOLDER, all_of, one, render

GROUPS = yaml.safe_load((FOLDER / "files/alerts.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD = json.loads((FOLDER / "files/dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
SUFFIX = re.compile(r"_(bucket|sum|count|total)$")


def told():
    """The families of metrics, without suffix."""
    types = re.findall(r"^# TYPE (\S+)", Metrics().text().decode(), re.MULTILINE)
    return {SUFFIX.sub("", name) for name in types}


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in RULES), *QUERIES])
def test_a_query_is_valid_and_asks_for_metrics_that_are_told(query):
    # Grafana's variable for the distance of two readings.
    promql_parser.parse(query.replace("$__rate_interval", "5m"))
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = set(re.findall(r"\bm3h[a-z0-9_:]*", re.sub(r'"[^"]*"', "", query))) - recorded
    assert {SUFFIX.sub("", name) for name in asked} <= told()


def test_all_that_is_told_is_shown():
    shown = {SUFFIX.sub("", name) for q in QUERIES for name in re.findall(r"\bm3h_[a-z_]+", q)}
    assert told() <= shown


def test_an_alert_says_how_bad_it_is_and_what_to_do():
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_alerts_fire_when_they_must_and_only_then():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there (Debian: prometheus)")
    cases = Path(__file__).with_name("alerts_fire.yaml")
    done = subprocess.run(
        [promtool, "test", "rules", cases], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_made_to_fire():
    cases = (Path(__file__).with_name("alerts_fire.yaml")).read_text()
    for rule in ALERTS:
        assert cases.count(rule["alert"]) > 1


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
    asked = metrics[1]["pods"]["metric"]["name"]
    assert asked in {rule.get("record") for rule in RULES}


def test_no_panel_lies_over_another():
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
