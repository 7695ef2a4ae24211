"""The Ingress: which paths clients outside the cluster can reach."""

from pathlib import Path

import pytest

from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from tests.helm.chart import ALL_FEATURES, environment, find_object, render, server_spec

INTERNAL = "/metrics"  # the metrics reveal the hospital's usage


@pytest.fixture(scope="module")
def paths():
    (rule,) = find_object(render(ALL_FEATURES), "Ingress")["spec"]["rules"]
    return rule["http"]["paths"]


@pytest.fixture(scope="module")
def routes(bundle_dir: Path):
    engine = Engine(Bundle.load(bundle_dir, "cpu", threads=1))
    return {route.path for route in flatten_routes(create_app(engine, Settings()))}


def flatten_routes(router):
    """Yields the routes of an app and of the routers that it includes."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from flatten_routes(route.original_router)
        else:
            yield route


def reachable(paths, path):
    """Returns whether the Ingress routes a path. A prefix matches whole path elements."""
    elements = path.strip("/").split("/")
    for entry in paths:
        if entry["pathType"] == "Exact":
            matches = entry["path"] == path
        else:
            prefix = entry["path"].strip("/").split("/")
            matches = elements[: len(prefix)] == prefix
        if matches:
            return True
    return False


def test_clients_reach_every_route_except_the_metrics(paths, routes):
    assert {"/", "/predict", "/predict/batch", "/page/app.js", INTERNAL} <= routes
    assert {path for path in routes if not reachable(paths, path)} == {INTERNAL}


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/x", "/admin/reload"])
def test_clients_cannot_reach_metrics_and_admin(paths, path):
    assert not reachable(paths, path)


def test_every_listed_path_has_a_route(paths, routes):
    for entry in paths:
        assert any(reachable([entry], path) for path in routes), entry["path"]


def test_every_path_routes_to_the_service(paths):
    name = find_object(render(ALL_FEATURES), "Service")["metadata"]["name"]
    backends = [entry["backend"]["service"] for entry in paths]
    assert all(backend == {"name": name, "port": {"name": "http"}} for backend in backends)


def test_a_path_prefix_applies_to_every_path(routes):
    values = ALL_FEATURES | {"ingress": ALL_FEATURES["ingress"] | {"path": "/m3h"}}
    objects = render(values)
    (rule,) = find_object(objects, "Ingress")["spec"]["rules"]
    paths = rule["http"]["paths"]
    assert {path for path in routes if not reachable(paths, f"/m3h{path}")} == {INTERNAL}
    assert not any(reachable(paths, path) for path in routes)
    assert reachable(paths, "/m3h")
    (container,) = server_spec(objects)["containers"]
    assert environment(objects, container)["M3H_ROOT_PATH"] == "/m3h"
