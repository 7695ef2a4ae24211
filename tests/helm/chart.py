"""Renders the chart with Helm's own engine, without a cluster, and finds objects in the result."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

Values = dict[str, Any]
Object = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "helm"
CHART = helm_python.Chart.load(FOLDER)
DEFAULTS = yaml.safe_load((FOLDER / "values.yaml").read_text())

EXAMPLES = {
    path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("ci/*.yaml"))
}
# All features that can be enabled at the same time.
ALL_FEATURES: Values = {
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "icu", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "icu", "operator": "Exists"}]}]
            }
        }
    },
    "priorityClassName": "high",
    "podAnnotations": {"sidecar.istio.io/inject": "false"},
    "podLabels": {"team": "icu"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "topologySpreadConstraints": [
        {
            "topologyKey": "rack",
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"team": "icu"}},
        }
    ],
    "gpu": {"enabled": True, "runtimeClassName": "nvidia"},
    "bundle": {"source": "url", "url": "https://files/m3h.tar.gz", "sha256": "0" * 64},
    "redis": {"mode": "own", "password": "a" * 16, "secret": "k" * 16},
    "ingress": {"enabled": True, "host": "m3h.example", "tlsSecret": "tls", "className": "nginx"},
    "autoscaling": {"enabled": True, "targetQueueDepth": 4},
    "networkPolicy": {"allowTo": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]},
    "monitoring": {"serviceMonitor": True, "prometheusRule": True, "dashboard": True},
    "training": {"enabled": True, "claim": "m3h", "cohorts": ["runs/a", "runs/b"], "nodes": 2},
}
CASES = {"nothing set": {}, "everything set": ALL_FEATURES, **EXAMPLES}


def render(values: Values, name: str = "m3h") -> list[Object]:
    """Returns the rendered objects.

    Raises HelmValuesError if the schema rejects the values, HelmRenderError if a template fails.
    """
    files = CHART.render(values, name=name, namespace="icu")
    files.pop("m3h/templates/NOTES.txt")
    return [
        document for text in files.values() for document in yaml.safe_load_all(text) if document
    ]


def render_notes(values: Values) -> str:
    return CHART.render(values, name="m3h", namespace="icu")["m3h/templates/NOTES.txt"]


def list_objects(objects: list[Object], kind: str) -> list[Object]:
    return [document for document in objects if document["kind"] == kind]


def find_object(objects: list[Object], kind: str, component: str = "server") -> Object:
    """Returns the only object of a kind and a component."""
    label = "app.kubernetes.io/component"
    candidates = list_objects(objects, kind)
    (match,) = [o for o in candidates if o["metadata"]["labels"][label] == component]
    return match


def pod_templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yields the name of each object that owns pods, and its pod template."""
    for document in objects:
        owner = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "Pod":
            yield owner, document
        elif "template" in document.get("spec", {}):
            yield owner, document["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    spec = pod["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def server_spec(objects: list[Object]) -> Object:
    """Returns the spec of the server pods."""
    return find_object(objects, "Deployment")["spec"]["template"]["spec"]


def environment(objects: list[Object], container: Object) -> dict[str, str]:
    """Returns the environment of a container; `<secret>/<key>` for a Secret of another owner."""
    maps = {o["metadata"]["name"]: o["data"] for o in list_objects(objects, "ConfigMap")}
    secrets = {o["metadata"]["name"]: o["stringData"] for o in list_objects(objects, "Secret")}
    variables = {}
    for source in container.get("envFrom", []):
        variables |= maps[source["configMapRef"]["name"]]
    for entry in container.get("env", []):
        if "value" in entry:
            variables[entry["name"]] = entry["value"]
        else:
            ref = entry["valueFrom"]["secretKeyRef"]
            secret, key = ref["name"], ref["key"]
            own = secrets.get(secret)
            variables[entry["name"]] = f"{secret}/{key}" if own is None else own[key]
    return variables


def redis_container(objects: list[Object]) -> Object:
    """Returns the container of the chart's own Redis."""
    (container,) = containers(find_object(objects, "StatefulSet", "redis")["spec"]["template"])
    return container
