"""The chart as a whole: it renders, holds together, and says what it is."""

import json
import tomllib
from functools import cache

import helm_python
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests.helm.chart import (
    CASES,
    CHART,
    CI,
    DEFAULTS,
    EVERYTHING,
    FOLDER,
    all_of,
    containers,
    notes,
    one,
    render,
    templates,
)

VERSIONS = ("1.28", "1.30", "1.33", kubernetes_validate.latest_version())
OF_THE_PROMETHEUS_OPERATOR = {"ServiceMonitor", "PrometheusRule"}  # Kubernetes has no schema
NAME = 63  # most characters of a name in DNS
FIRST = ("batch.kubernetes.io/job-completion-index", "0")  # a label that Kubernetes gives
SUFFIX = len("-0")  # of a pod's number

each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module", autouse=True)
def schemas_read_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


@pytest.mark.parametrize("name", CI)
def test_lint_has_nothing_to_say(name):
    report = helm_python.lint(FOLDER, CI[name], strict=True)
    said = [m["error"] for m in report["messages"]]
    assert (report["errors"], said) == ([], ["icon is recommended"])


@each_case
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(case, version):
    kinds = set()
    for found in render(CASES[case]):
        kinds.add(found["kind"])
        if found["kind"] not in OF_THE_PROMETHEUS_OPERATOR:
            kubernetes_validate.validate(found, version, strict=True)
    assert {"Deployment", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy"} <= kinds


@each_case
def test_a_container_finds_its_volumes_and_a_probe_its_port(case):
    for owner, pod in templates(render(CASES[case])):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for container in containers(pod):
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= volumes, owner
            ports = {port["name"] for port in container.get("ports", [])}
            probes = [container.get(f"{p}Probe", {}) for p in ("startup", "readiness", "liveness")]
            asked = [probe.get("httpGet") or probe.get("tcpSocket") for probe in probes if probe]
            assert {one["port"] for one in asked} <= ports, owner


@each_case
def test_a_service_finds_its_pods_and_their_port(case):
    objects = render(CASES[case])
    for found in all_of(objects, "Service"):
        spec, name = found["spec"], found["metadata"]["name"]
        label = "app.kubernetes.io/component"
        assert spec["selector"][label] == found["metadata"]["labels"][label], name
        pods = selected(objects, dict(spec["selector"].items() - {FIRST}))
        there = {p["name"] for pod in pods for c in containers(pod) for p in c.get("ports", [])}
        assert {port.get("targetPort") for port in spec["ports"]} <= {None, *there}, name


@each_case
def test_what_is_about_pods_finds_some(case):
    objects = render(CASES[case])
    for found in all_of(objects, "NetworkPolicy"):
        assert selected(objects, found["spec"]["podSelector"]["matchLabels"])
    for found in all_of(objects, "PodDisruptionBudget"):
        assert selected(objects, found["spec"]["selector"]["matchLabels"])
    for found in all_of(objects, "HorizontalPodAutoscaler"):
        target = found["spec"]["scaleTargetRef"]["name"]
        assert target == one(objects, "Deployment")["metadata"]["name"]
    for found in all_of(objects, "ServiceMonitor"):
        labels = one(objects, "Service")["metadata"]["labels"].items()
        assert found["spec"]["selector"]["matchLabels"].items() <= labels


def selected(objects, labels):
    """The pods that have all of these labels."""
    found = [pod for _, pod in templates(objects)]
    return [pod for pod in found if labels.items() <= pod["metadata"]["labels"].items()]


@each_case
def test_no_two_objects_have_one_name(case):
    names = [(o["kind"], o["metadata"]["name"]) for o in render(CASES[case])]
    assert len(names) == len(set(names))


def test_the_longest_name_of_a_release_fits():
    for found in render(EVERYTHING, name="a" * 53):
        assert len(found["metadata"]["name"]) + SUFFIX <= NAME


def test_two_releases_share_nothing():
    one_of, other = (
        {(o["kind"], o["metadata"]["name"]) for o in render(EVERYTHING, name)}
        for name in ("a", "b")
    )
    assert not one_of & other


def test_the_same_values_render_the_same():
    assert render(EVERYTHING) == render(EVERYTHING)


def test_the_version_is_that_of_the_service():
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    assert CHART.metadata["appVersion"] == project["version"]


def test_every_value_is_in_the_schema_and_nothing_else_is():
    schema = json.loads((FOLDER / "values.schema.json").read_text())

    def compare(values, properties, path=""):
        assert values.keys() == properties.keys(), path
        for name, value in values.items():
            if properties[name].get("properties") and name not in ("settings", "resources"):
                assert properties[name]["additionalProperties"] is False
                compare(value, properties[name]["properties"], f"{path}.{name}")

    del schema["properties"]["global"]  # Helm's own, if this chart is a part of another
    assert schema["additionalProperties"] is False
    compare(DEFAULTS, schema["properties"])


def test_every_value_is_documented_in_its_line():
    lines = (FOLDER / "values.yaml").read_text().splitlines()
    for line in lines:
        name, _, value = line.partition(":")
        of_resources = name.strip() in ("requests", "limits")
        if value.strip() and not line.startswith("#") and not of_resources:
            assert " # " in line, line


@each_case
def test_notes_say_how_to_go_on(case):
    said = notes(CASES[case])
    assert "helm test m3h --namespace icu" in said
    assert "<no value>" not in said


def test_notes_name_what_is_needed_and_not_there_yet():
    assert "metrics adapter" in notes({"autoscaling": {"targetQueueDepth": 4}})
    assert "networkPolicy.allowFrom" in notes({})
    assert "networkPolicy.allowFrom" not in notes(CI["three-gpus-values.yaml"])
    assert "bundle.claim=m3h" in notes(EVERYTHING)


def test_the_package_has_what_is_read(tmp_path):
    package = helm_python.package(FOLDER, destination=tmp_path)
    with helm_python.Chart.load(package) as chart:
        packed = chart.render(EVERYTHING, name="m3h", namespace="icu")
    assert packed == CHART.render(EVERYTHING, name="m3h", namespace="icu")
    assert yaml.safe_load(packed["m3h/templates/deployment.yaml"])
