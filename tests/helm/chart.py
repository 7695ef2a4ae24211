"""The chart as the engine of Helm itself renders it. No cluster is asked."""

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

CI = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("ci/*.yaml"))}
# All that can be at once.
EVERYTHING: Values = {
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
CASES = {"nothing set": {}, "everything set": EVERYTHING, **CI}


def render(values: Values, name: str = "m3h") -> list[Object]:
    """Each object. Raises HelmValuesError, or HelmRenderError where a template refuses."""
    files = CHART.render(values, name=name, namespace="icu")
    files.pop("m3h/templates/NOTES.txt")
    return [found for text in files.values() for found in yaml.safe_load_all(text) if found]


def notes(values: Values) -> str:
    return CHART.render(values, name="m3h", namespace="icu")["m3h/templates/NOTES.txt"]


def all_of(objects: list[Object], kind: str) -> list[Object]:
    return [found for found in objects if found["kind"] == kind]


def one(objects: list[Object], kind: str, component: str = "server") -> Object:
    """The only object of a kind and a component."""
    label = "app.kubernetes.io/component"
    (found,) = [o for o in all_of(objects, kind) if o["metadata"]["labels"][label] == component]
    return found


def templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """What owns pods, and what they are like: labels and spec."""
    for found in objects:
        owner = f"{found['kind']} {found['metadata']['name']}"
        if found["kind"] == "Pod":
            yield owner, found
        elif "template" in found.get("spec", {}):
            yield owner, found["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    spec = pod["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def server(objects: list[Object]) -> Object:
    """The spec of the pods that serve."""
    return one(objects, "Deployment")["spec"]["template"]["spec"]


def environment(objects: list[Object], container: Object) -> dict[str, str]:
    """What a container finds, of what this release makes; `<secret>/<key>` for another's Secret."""
    maps = {o["metadata"]["name"]: o["data"] for o in all_of(objects, "ConfigMap")}
    secrets = {o["metadata"]["name"]: o["stringData"] for o in all_of(objects, "Secret")}
    found = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    for entry in container.get("env", []):
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        else:
            ref = entry["valueFrom"]["secretKeyRef"]
            secret, key = ref["name"], ref["key"]
            found[entry["name"]] = secrets[secret][key] if secret in secrets else f"{secret}/{key}"
    return found
