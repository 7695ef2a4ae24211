"""The chart as a whole: it renders, its objects refer to each other, its values are documented."""

import json
import re
import tomllib
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

import helm_python
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from tests.helm.chart import (
    ALL_FEATURES,
    CASES,
    CHART,
    DEFAULTS,
    EXAMPLES,
    FOLDER,
    containers,
    find_object,
    list_objects,
    pod_templates,
    render,
    render_notes,
)

LOADER = SourceFileLoader("chart_docs", str(FOLDER.parent / "scripts" / "chart-docs"))
CHART_DOCS = module_from_spec(spec_from_loader("chart_docs", LOADER))
LOADER.exec_module(CHART_DOCS)

VERSIONS = ("1.28", "1.30", "1.33", kubernetes_validate.latest_version())
OPERATOR_KINDS = {"ServiceMonitor", "PrometheusRule"}  # Kubernetes has no schema of these
MAX_NAME = 63  # characters of a DNS name
FIRST_POD = ("batch.kubernetes.io/job-completion-index", "0")  # a label that Kubernetes sets
SUFFIX = len("-0")  # the number of a pod

each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture(scope="module", autouse=True)
def cached_schemas():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_lint_reports_only_the_missing_icon(name):
    report = helm_python.lint(FOLDER, EXAMPLES[name], strict=True)
    messages = [m["error"] for m in report["messages"]]
    assert (report["errors"], messages) == ([], ["icon is recommended"])


@each_case
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_in_each_kubernetes_version(case, version):
    kinds = set()
    for document in render(CASES[case]):
        kinds.add(document["kind"])
        if document["kind"] not in OPERATOR_KINDS:
            kubernetes_validate.validate(document, version, strict=True)
    assert {"Deployment", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy"} <= kinds


@each_case
def test_volume_mounts_and_probes_refer_to_existing_volumes_and_ports(case):
    for owner, pod in pod_templates(render(CASES[case])):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for container in containers(pod):
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= volumes, owner
            ports = {port["name"] for port in container.get("ports", [])}
            probes = [container.get(f"{p}Probe", {}) for p in ("startup", "readiness", "liveness")]
            targets = [probe.get("httpGet") or probe.get("tcpSocket") for probe in probes if probe]
            assert {target["port"] for target in targets} <= ports, owner


@each_case
def test_every_service_selects_pods_that_have_its_target_port(case):
    objects = render(CASES[case])
    for document in list_objects(objects, "Service"):
        spec, name = document["spec"], document["metadata"]["name"]
        label = "app.kubernetes.io/component"
        assert spec["selector"][label] == document["metadata"]["labels"][label], name
        pods = selected_pods(objects, dict(spec["selector"].items() - {FIRST_POD}))
        ports = {p["name"] for pod in pods for c in containers(pod) for p in c.get("ports", [])}
        assert {port.get("targetPort") for port in spec["ports"]} <= {None, *ports}, name


@each_case
def test_every_selector_matches_an_object(case):
    objects = render(CASES[case])
    for policy in list_objects(objects, "NetworkPolicy"):
        assert selected_pods(objects, policy["spec"]["podSelector"]["matchLabels"])
    for budget in list_objects(objects, "PodDisruptionBudget"):
        assert selected_pods(objects, budget["spec"]["selector"]["matchLabels"])
    for autoscaler in list_objects(objects, "HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]["name"]
        assert target == find_object(objects, "Deployment")["metadata"]["name"]
    for monitor in list_objects(objects, "ServiceMonitor"):
        labels = find_object(objects, "Service")["metadata"]["labels"].items()
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels


def selected_pods(objects, labels):
    """Returns the pod templates that have all of the labels."""
    pods = [pod for _, pod in pod_templates(objects)]
    return [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]


@each_case
def test_object_names_are_unique(case):
    names = [(o["kind"], o["metadata"]["name"]) for o in render(CASES[case])]
    assert len(names) == len(set(names))


def test_the_longest_release_name_gives_valid_object_names():
    for document in render(ALL_FEATURES, name="a" * 53):
        assert len(document["metadata"]["name"]) + SUFFIX <= MAX_NAME


def test_two_releases_share_no_object():
    first, second = (
        {(o["kind"], o["metadata"]["name"]) for o in render(ALL_FEATURES, name)}
        for name in ("a", "b")
    )
    assert not first & second


def test_rendering_is_reproducible():
    assert render(ALL_FEATURES) == render(ALL_FEATURES)


def test_app_version_is_the_version_of_the_service():
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    assert CHART.metadata["appVersion"] == project["version"]


def test_the_schema_declares_exactly_the_values():
    schema = json.loads((FOLDER / "values.schema.json").read_text())

    def compare(values, properties, path=""):
        assert values.keys() == properties.keys(), path
        for name, value in values.items():
            if properties[name].get("properties") and name not in ("settings", "resources"):
                assert properties[name]["additionalProperties"] is False
                compare(value, properties[name]["properties"], f"{path}.{name}")

    del schema["properties"]["global"]  # set by Helm if the chart is a dependency of another
    assert schema["additionalProperties"] is False
    compare(DEFAULTS, schema["properties"])


def test_every_value_has_a_comment():
    lines = (FOLDER / "values.yaml").read_text().splitlines()
    for line in lines:
        name, _, value = line.partition(":")
        is_resource = name.strip() in ("requests", "limits")
        if value.strip() and not line.startswith("#") and not is_resource:
            assert " # " in line, line


@each_case
def test_notes_contain_the_next_commands(case):
    text = render_notes(CASES[case])
    assert "helm test m3h --namespace icu" in text
    assert "<no value>" not in text


def test_notes_name_missing_requirements():
    assert "metrics adapter" in render_notes({"autoscaling": {"targetQueueDepth": 4}})
    assert "networkPolicy.allowFrom" in render_notes({})
    assert "networkPolicy.allowFrom" not in render_notes(EXAMPLES["three-gpus-values.yaml"])
    assert "bundle.claim=m3h" in render_notes(ALL_FEATURES)


def test_the_packaged_chart_renders_the_same(tmp_path):
    package = helm_python.package(FOLDER, destination=tmp_path)
    with helm_python.Chart.load(package) as chart:
        packed = chart.render(ALL_FEATURES, name="m3h", namespace="icu")
    assert packed == CHART.render(ALL_FEATURES, name="m3h", namespace="icu")
    assert yaml.safe_load(packed["m3h/templates/deployment.yaml"])


def test_the_readme_and_the_schema_have_the_comments_of_the_values():
    text = (FOLDER / "values.yaml").read_text(encoding="utf-8")
    readme, schema = CHART_DOCS.readme(text), CHART_DOCS.described_schema(text)
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == readme, "run make chart-docs"
    assert (FOLDER / "values.schema.json").read_text(encoding="utf-8") == schema
    changed = text.replace("# interval in seconds", "# seconds between probes")
    assert '"description": "seconds between probes"' in CHART_DOCS.described_schema(changed)


def test_every_property_of_the_schema_has_a_description():
    schema = json.loads((FOLDER / "values.schema.json").read_text(encoding="utf-8"))

    def undescribed(node):
        """Yields the names of properties without a description, at any depth."""
        properties, definitions = node.get("properties", {}), node.get("definitions", {})
        yield from (name for name, part in properties.items() if not part.get("description"))
        items = [node["items"]] if "items" in node else []
        for part in (*properties.values(), *definitions.values(), *items):
            yield from undescribed(part)

    assert list(undescribed(schema)) == []
    del schema["definitions"]["probe"]["properties"]["periodSeconds"]["description"]
    assert list(undescribed(schema)) == ["periodSeconds"]


def test_the_readme_of_the_chart_describes_every_value():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1] for line in readme.splitlines() if line.startswith("| `")}

    def leaves(values, path=""):
        for name, value in values.items():
            if f"{path}{name}" not in rows and isinstance(value, dict):
                yield from leaves(value, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    assert rows == set(leaves(DEFAULTS))
    for path in re.findall(r"\]\((ci/.+?)\)|helm/(ci/\S+)", readme):
        assert (FOLDER / "".join(path)).is_file()
