"""Versions agree, workflows and the compose file are valid, CONTRIBUTING.md is real."""

import re
import shutil
import subprocess
import tomllib

import pytest
import yaml

from tests.docs.blocks import ROOT, blocks_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()


def test_all_versions_are_that_of_pyproject():
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    version = PROJECT["version"]
    assert (chart["appVersion"], citation["version"]) == (version, version)
    assert COMPOSE["services"]["m3h"]["image"] == f"m3h:{version}-cpu"
    assert f"Version {version}:" in (ROOT / "README.md").read_text()


def test_the_citation_file_has_its_required_fields():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["license"] == PROJECT["license"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_workflows_are_yaml_and_call_existing_targets(path):
    text = path.read_text()
    assert yaml.safe_load(text)
    for target in re.findall(r"(?:run: |^ +)make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


def test_workflows_have_minimal_permissions():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}, path


def test_pre_commit_hooks_are_local():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {hook["language"] for hook in hooks} == {"system"}


def test_the_compose_file_references_existing_files_and_services():
    services = COMPOSE["services"]
    assert services.keys() == {"m3h", "redis", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["image"].partition(":")[2], f"{name} has no version"
        assert set(service.get("depends_on", [])) <= services.keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (ROOT / source).is_file() if "/" in source else source in COMPOSE["volumes"]
            assert exists, volume
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_the_compose_file_sets_only_settings_that_exist():
    from service.settings import Settings, environment_variable

    names = {environment_variable(name) for name in Settings.model_fields}
    assert set(COMPOSE["services"]["m3h"]["environment"]) <= names


def test_the_compose_file_uses_the_redis_of_the_chart():
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    assert COMPOSE["services"]["redis"]["image"] == f"redis:{values['redis']['image']['tag']}"


def test_prometheus_of_the_compose_file_accepts_its_configuration(tmp_path):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    config = yaml.safe_load((ROOT / "compose" / "prometheus.yaml").read_text())
    mounts = [v.split(":")[:2] for v in COMPOSE["services"]["prometheus"]["volumes"]]
    inside = {target: ROOT / source for source, target in mounts}
    config["rule_files"] = [str(inside[path]) for path in config["rule_files"]]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = ["promtool", "check", "config", tmp_path / "prometheus.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"]
    assert target["targets"] == ["m3h:8000"]
    assert job["job_name"] == "m3h"


def test_the_commands_of_the_contributing_page_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (block,) = [block for block in blocks_of("CONTRIBUTING.md") if block.language == "sh"]
    assert block.body.splitlines()[1] == "make test"
    for target in re.findall(r"`make (\w+)`", page):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    for path in re.findall(r"`((?:tests|docs|service|web)/[\w/.]*)`", page):
        assert (ROOT / path).exists(), path


def test_no_project_file_names_a_registry_host():
    hosts = ("pypi" + ".org", "npmjs" + ".", "docker.io" + "/prom", "ghcr" + ".io", "quay" + ".io")
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "*.yml", "*.yaml", "*.toml", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not [host for host in hosts if host in text], name
