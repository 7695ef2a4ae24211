"""Helm's engine accepts each `helm` command of docs/deployment.md, without a cluster."""

import argparse
import re
import shlex

import helm_python
import pytest
import yaml

from tests.helm.chart import CHART, EXAMPLES, FOLDER, find_object, list_objects

PAGE = (FOLDER.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line
    for kind, body in BLOCKS
    if kind == "sh"
    for line in body.splitlines()
    if line.startswith("helm ")
]
(HOSPITAL,) = [body for kind, body in BLOCKS if kind == "yaml"]


def parser():
    """Return a parser of the documented part of Helm's command line."""
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("name")
    common.add_argument("--namespace", required=True)
    helm = argparse.ArgumentParser(prog="helm", allow_abbrev=False, exit_on_error=False)
    actions = helm.add_subparsers(dest="action", required=True)
    upgrade = actions.add_parser("upgrade", parents=[common])
    upgrade.add_argument("chart")
    upgrade.add_argument("--install", action="store_true", required=True)
    upgrade.add_argument("--create-namespace", action="store_true")
    upgrade.add_argument("--wait", action="store_true")
    upgrade.add_argument("--values", action="append", default=[])
    upgrade.add_argument("--set", action="append", default=[])
    actions.add_parser("test", parents=[common])
    actions.add_parser("rollback", parents=[common]).add_argument("--wait", action="store_true")
    return helm


def installed(command):
    """Return the release that `helm upgrade --install` creates, and its objects."""
    values = {}
    for name in command.values:
        text = HOSPITAL if name == "hospital.yaml" else (FOLDER.parent / name).read_text()
        values = merged(values, helm_python.values_from_yaml(text))
    for expression in command.set:
        values = merged(values, helm_python.parse_set_string(expression))
    with helm_python.Config(storage_driver="memory", namespace=command.namespace) as helm:
        release = helm.install(
            str(FOLDER.parent / command.chart),
            command.name,
            values,
            namespace=command.namespace,
            dry_run="client",
            create_namespace=command.create_namespace,
        )
    return release, [document for document in yaml.safe_load_all(release["manifest"]) if document]


def merged(values, more):
    both = {
        k: merged(values[k], more[k])
        for k in values.keys() & more.keys()
        if isinstance(more[k], dict)
    }
    return values | more | both


@pytest.fixture(scope="module")
def first():
    """The first command that installs."""
    return parser().parse_args(shlex.split(COMMANDS[0], comments=True)[1:])


@pytest.mark.parametrize("line", COMMANDS)
def test_helm_accepts_the_command(line, first):
    command = parser().parse_args(shlex.split(line, comments=True)[1:])
    assert (command.name, command.namespace) == (first.name, first.namespace)
    if command.action != "upgrade":
        return  # it needs an installed release
    release, objects = installed(command)
    assert (release["name"], release["namespace"]) == (command.name, command.namespace)
    assert find_object(objects, "Deployment")


def test_the_first_release_uses_the_pushed_image(first):
    pushed = re.search(r"docker push (\S+)", PAGE)[1]
    _, objects = installed(first)
    (container,) = find_object(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == pushed


def test_the_forwarded_service_exists(first):
    service, port = re.search(r"port-forward service/(\S+) \d+:(\d+)", PAGE).groups()
    _, objects = installed(first)
    rendered = find_object(objects, "Service")
    assert rendered["metadata"]["name"] == service
    assert int(port) in [p["port"] for p in rendered["spec"]["ports"]]


def test_the_commands_create_the_documented_objects():
    lines = {
        line: installed(parser().parse_args(shlex.split(line)[1:]))[1]
        for line in COMMANDS
        if "--set" in line
    }
    for line, objects in lines.items():
        assert bool(list_objects(objects, "Job")) == ("training.enabled=true" in line)
        volumes = find_object(objects, "Deployment")["spec"]["template"]["spec"].get("volumes", [])
        claims = [
            v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v
        ]
        assert bool(claims) == ("bundle.claim" in line)
    assert any("training.enabled=true" in line for line in lines)
    assert any("bundle.claim" in line for line in lines)


def test_image_tags_have_the_chart_version():
    tags = re.findall(r"\d+\.\d+\.\d+-cpu", PAGE + EXAMPLES["laptop-values.yaml"]["image"]["tag"])
    assert set(tags) == {f"{CHART.version}-cpu"}
