"""The runbook: every alert has a section, and its commands, names and links work."""

import json
import re
import subprocess
import sys

import httpx
import pytest

from service.settings import Settings
from tests.helm.chart import ALL_FEATURES, DEFAULTS, FOLDER, containers, pod_templates, render
from tests.helm.test_monitoring import ALERTS, PANELS, RUNBOOK
from tests.support.servers import service_process

PROSE = re.sub(r"```.*?```", "", RUNBOOK, flags=re.DOTALL)
HEADINGS = re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
ALERT_SECTIONS = {
    match[1]: match[2]
    for match in re.finditer(r"^### (M3H\w+)\n(.*?)(?=^##)", RUNBOOK, re.MULTILINE | re.DOTALL)
}
SERVICE = FOLDER.parent / "service"


def anchor(heading):
    """Returns the anchor that GitHub makes for a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_alerts_and_sections_correspond():
    assert list(ALERT_SECTIONS) == [rule["alert"] for rule in ALERTS]
    for rule in ALERTS:
        link = f"docs/runbook.md#{anchor(rule['alert'])}"
        assert rule["annotations"]["runbook"] == link


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_section_has_its_four_parts(alert):
    text = ALERT_SECTIONS[alert["alert"]]
    assert text.lstrip().startswith(alert["labels"]["severity"].title())
    parts = [text.lower().find(part) for part in ("**it means**", "**look**", "**do**", "**over**")]
    assert -1 not in parts
    assert parts == sorted(parts)


def test_every_link_has_a_target():
    anchors = {anchor(heading) for heading in HEADINGS}
    for target in re.findall(r"\]\(([^)]+)\)", PROSE):
        path, _, fragment = target.partition("#")
        assert fragment in anchors if fragment else (FOLDER.parent / "docs" / path).is_file(), (
            target
        )


def test_every_named_panel_is_on_the_dashboard():
    named = re.findall(r'panels? ((?:"[^"]+"(?:, |\s+and\s+)?)+)', PROSE)
    titles = {title for some in named for title in re.findall(r'"([^"]+)"', some)}
    assert len(titles) > len(ALERTS)
    assert titles <= {panel["title"] for panel in PANELS}


def test_every_named_log_event_exists():
    code = "".join(path.read_text() for path in SERVICE.rglob("*.py"))
    events = set(re.findall(r'"event":"([^"]+)"', RUNBOOK))
    assert len(events) > 5
    for event in events:
        assert f'"{event}"' in code


def test_every_named_setting_and_value_exists():
    for name in re.findall(r"\bM3H_([A-Z_]+)", RUNBOOK):
        assert name.lower() in Settings.model_fields
    roots = "|".join(DEFAULTS)
    named = set(re.findall(rf"`((?:{roots})(?:\.\w+)*)`", PROSE))
    assert len(named) > 10
    for name in named:
        root, _, rest = name.partition(".")
        if root == "settings":
            assert rest in Settings.model_fields
            continue
        value = DEFAULTS[root]
        for part in filter(None, rest.split(".")):
            value = value[part]


def test_every_named_object_is_in_the_chart():
    objects = render(ALL_FEATURES)
    named = set(re.findall(r"\b(deployment|statefulset|service)/([a-z0-9-]+)", RUNBOOK))
    assert named <= {(o["kind"].lower(), o["metadata"]["name"]) for o in objects}
    pods = [pod for _, pod in pod_templates(objects)]
    names = {container["name"] for pod in pods for container in containers(pod)}
    assert set(re.findall(r"--container ([a-z0-9-]+)", RUNBOOK)) <= names
    labels = dict(pair.split("=") for pair in re.search("SERVERS=(.+)", RUNBOOK)[1].split(","))
    assert any(labels.items() <= pod["metadata"]["labels"].items() for pod in pods)


def test_lines_have_at_most_120_characters():
    assert max(map(len, RUNBOOK.splitlines())) <= 120


def test_the_reload_and_log_commands_work(bundle_dir, tmp_path):
    script, body = re.search(r"python3 -c '\n(.*?)\n' '(.*?)'\n", RUNBOOK, re.DOTALL).groups()
    (log_filter,) = re.findall(
        r"kubectl logs POD --tail=-1 \| (grep '\"event\":\"request.*)", RUNBOOK
    )
    log = tmp_path / "log"
    process, url = service_process.start(bundle_dir, log, M3H_WORKERS="1")
    try:
        port = str(json.loads(log.read_text().splitlines()[0])["port"])
        default = str(Settings.model_fields["admin_port"].default)
        assert default in script

        def reload(bundle):
            command = [sys.executable, "-c", script.replace(default, port)]
            request = json.dumps(json.loads(body) | {"bundle": str(bundle)})
            return json.loads(subprocess.check_output([*command, request], text=True))

        refused, done = reload(tmp_path), reload(bundle_dir)
        request = {"as_of": "2031-05-04T12:00:00Z", "tabular": {"age": 67}}
        answer = httpx.post(f"{url}/predict", json=request)
        wrong = httpx.post(f"{url}/predict", json={})
    finally:
        process.kill()
        process.communicate()
    assert refused["detail"] == f"{tmp_path} is not a bundle: {tmp_path}/manifest.json is missing"
    assert done.keys() == {"model", "digest"}
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[:3] == ["admin", "bundle refused", "bundle served"]

    assert (answer.status_code, wrong.status_code) == (200, 422)
    lines = subprocess.check_output(f"cat {log} | {log_filter}", shell=True, text=True)
    (line,) = map(json.loads, lines.splitlines())
    assert line["request_id"] == answer.headers["X-Request-ID"]
    (row,) = re.findall(r"^\| log of the pod \| time, (.*?) \|", RUNBOOK, re.MULTILINE)
    assert line.keys() == set(re.findall(r"`(\w+)`", row)) | {"event", "level", "timestamp"}
    assert answer.json()["model"]["digest"] == done["digest"]
