"""What can be asked from outside the cluster."""

from pathlib import Path

import pytest

from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings
from tests.helm.chart import EVERYTHING, environment, one, render, server

OPERATIONS = "/metrics"  # what is asked of a hospital, and how much, is nobody else's business


@pytest.fixture(scope="module")
def paths():
    (rule,) = one(render(EVERYTHING), "Ingress")["spec"]["rules"]
    return rule["http"]["paths"]


@pytest.fixture(scope="module")
def routes(bundle_dir: Path):
    engine = Engine(Bundle.load(bundle_dir, "cpu", threads=1))
    return {route.path for route in all_of(create_app(engine, Settings()))}


def all_of(router):
    """The routes of an app, and of the routers that it includes."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from all_of(route.original_router)
        else:
            yield route


def reached(paths, path):
    """As Kubernetes defines it: a prefix is one of whole elements."""
    elements = path.strip("/").split("/")
    for entry in paths:
        asked = entry["path"].strip("/").split("/")
        if entry["pathType"] == "Exact":
            found = entry["path"] == path
        else:
            found = elements[: len(asked)] == asked
        if found:
            return True
    return False


def test_callers_reach_every_route_but_the_metrics(paths, routes):
    assert {"/", "/predict", "/predict/batch", "/page/app.js", OPERATIONS} <= routes
    assert {path for path in routes if not reached(paths, path)} == {OPERATIONS}


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/x", "/admin/reload"])
def test_nobody_outside_reaches_what_is_for_operations(paths, path):
    assert not reached(paths, path)


def test_a_path_is_listed_only_if_something_is_there(paths, routes):
    for entry in paths:
        assert any(reached([entry], path) for path in routes), entry["path"]


def test_every_path_leads_to_the_service(paths):
    name = one(render(EVERYTHING), "Service")["metadata"]["name"]
    backends = [entry["backend"]["service"] for entry in paths]
    assert all(found == {"name": name, "port": {"name": "http"}} for found in backends)


def test_below_a_path_the_same_is_reached_and_nothing_else(routes):
    values = EVERYTHING | {"ingress": EVERYTHING["ingress"] | {"path": "/m3h"}}
    objects = render(values)
    (rule,) = one(objects, "Ingress")["spec"]["rules"]
    paths = rule["http"]["paths"]
    assert {path for path in routes if not reached(paths, f"/m3h{path}")} == {OPERATIONS}
    assert not any(reached(paths, path) for path in routes)
    assert reached(paths, "/m3h")
    (container,) = server(objects)["containers"]
    assert environment(objects, container)["M3H_ROOT_PATH"] == "/m3h"
