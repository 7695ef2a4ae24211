"""The container image: built by buildah and run by podman with the restrictions of the chart.

A Debian built by debootstrap replaces the official Python image.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from ast import literal_eval
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import yaml

from tests.support.servers import service_process

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "image"
BASE = "docker.io/library/python:3.11-slim-bookworm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m3h"

# Needs no systemd and no daemon, and does not touch the user's own containers.
STORAGE = (
    '[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n'
)
CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
"""
# The restrictions of the chart's pods: an unknown user, and only /tmp is writable.
RESTRICTED = [
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--passwd=false", "--network", "host"),
]
USERS = ["10001", "1000660000:0"]  # the user of the image; a user that OpenShift assigns


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def check_output(*command: object, **environment: str) -> str:
    """Returns what the command prints. Fails with its output if the command fails."""
    done = run(*command, **environment)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


# ---------------------------------------------------------------- Dockerfile and scripts/image


def test_hadolint_reports_nothing():
    hadolint = Path(sys.executable).parent / "hadolint"
    assert check_output(hadolint, ROOT / "Dockerfile") == ""


def test_image_names_equal_those_of_the_chart():
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    for target, image, suffix in (
        ("gpu", values["image"], ""),
        ("cpu", values["image"], "-cpu"),
        ("train", values["training"]["image"], ""),
    ):
        tag = f"{image['repository']}:{chart['appVersion']}{suffix}"
        assert f"--target {target} --tag {tag} " in check_output(SCRIPT, target, BUILDER="echo")


def test_an_unknown_target_and_a_missing_builder_are_named():
    unknown = run(SCRIPT, "tpu")
    assert (unknown.returncode, "gpu, cpu or train" in unknown.stderr) == (2, True)
    missing = run(SCRIPT, "cpu", BUILDER="no-such-builder")
    assert (missing.returncode, "no-such-builder is not installed" in missing.stderr) == (1, True)


def test_a_release_requires_the_digest_of_the_base_image():
    digest = f"@sha256:{'a' * 64}"
    for invalid in ({}, {"PYTHON_DIGEST": "3.11"}, {"PYTHON_DIGEST": "@sha256:abc"}):
        refused = run(SCRIPT, "cpu", BUILDER="echo", RELEASE="yes", **invalid)
        assert refused.returncode == 2
        assert "PYTHON_DIGEST" in refused.stderr
    command = check_output(SCRIPT, "cpu", BUILDER="echo", RELEASE="yes", PYTHON_DIGEST=digest)
    assert f"--build-arg PYTHON_DIGEST={digest} " in command


# ------------------------------------------------------------------------- build and run


@pytest.fixture(scope="module")
def containers() -> Iterator[None]:
    """Sets up buildah and podman with the base as their only image, or skips."""
    for program in ("buildah", "debootstrap", "podman", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    base = _build_base()
    folders = TemporaryDirectory(prefix="m3h-image-", dir="/var/tmp")  # /tmp may be in memory
    with folders as folder, pytest.MonkeyPatch.context() as patch:
        storage, engine = Path(folder, "storage.conf"), Path(folder, "containers.conf")
        engine.write_text(CONTAINERS.format(folder=folder))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
        patch.setenv("CONTAINERS_CONF", str(engine))
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        try:
            for driver in ("overlay", "vfs"):  # vfs copies every layer but works everywhere
                storage.write_text(STORAGE.format(driver=driver, folder=folder))
                imported = run("podman", "import", base, BASE)
                if imported.returncode == 0:
                    break
            started = run("podman", "run", "--rm", "--pull=never", *RESTRICTED, BASE, "true")
            for done in (imported, started):
                if done.returncode != 0:
                    pytest.skip(
                        f"containers cannot run here: {done.stderr.strip().splitlines()[-1]}"
                    )
            yield
        finally:
            run("podman", "rm", "--all", "--force")
            run("buildah", "rm", "--all")
            run("umount", "--recursive", Path(folder, "overlay", "overlay"))


def _build_base() -> Path:
    """Returns the archive of a Debian with Python. Builds it once for each user of this machine."""
    archive = CACHE / "bookworm-python.tar"
    if archive.is_file():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as folder:
        root, packed = Path(folder, "root"), Path(folder, "packed.tar")
        packages = "--include=python3,python3-venv,ca-certificates"
        built = run("debootstrap", "--variant=minbase", packages, "bookworm", root)
        if built.returncode != 0:
            pytest.skip(f"debootstrap failed: {built.stdout[-500:]}")
        excluded = [
            f"--exclude=./{path}/*" for path in ("proc", "sys", "var/cache/apt", "var/lib/apt")
        ]
        check_output("tar", "--create", "--file", packed, "--directory", root, *excluded, ".")
        packed.rename(archive)
    return archive


def _pip_options(folder: Path) -> list[str]:
    """Returns builder options that give the build the pip configuration of this machine."""
    listed = check_output(sys.executable, "-m", "pip", "config", "list")
    names = "index-url|extra-index-url|find-links|no-index|trusted-host|proxy|cert"
    # pip lists the environment first; it takes precedence over the files.
    settings = {
        name: " ".join(literal_eval(value).split())
        for name, value in reversed(re.findall(rf"^\S+\.({names})=(.*)$", listed, re.MULTILINE))
    }
    file = folder / "pip.conf"
    file.write_text(
        "\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items())])
    )
    paths = {Path(word) for value in settings.values() for word in value.split()}
    volumes = [
        f"--volume={path}:{path}:ro" for path in paths if path.is_absolute() and path.exists()
    ]
    return [f"--secret=id=pip.conf,src={file}", *volumes]


@dataclass
class Image:
    name: str
    facts: dict[str, Any]

    def run_python(self, user: str, program: str) -> str:
        """Returns what a Python program prints in a new container, as a user."""
        options = ["--rm", "--network", "none", "--user", user, "--entrypoint", "python3"]
        return check_output("podman", "run", *options, self.name, "-c", program)


@pytest.fixture(scope="module")
def image(containers: None, tmp_path_factory: pytest.TempPathFactory) -> Image:
    options = _pip_options(tmp_path_factory.mktemp("pip"))
    options = ["--pull-never", "--layers=false", *options]
    name = check_output(SCRIPT, "cpu", *options, BUILDER="buildah").split()[-3]
    (facts,) = json.loads(check_output("podman", "image", "inspect", name))
    return Image(name, facts)


def test_the_image_is_small_and_runs_as_a_numeric_user_without_a_shell(image):
    assert image.facts["Size"] <= 600e6
    config = image.facts["Config"]
    assert int(config["User"]) > 0
    assert config["Entrypoint"] == ["m3h-serve"]
    assert image.facts["Healthcheck"]["Test"][0] == "CMD"


def test_the_labels_name_title_licence_and_version(image):
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    labels = {name.rpartition(".")[2]: text for name, text in image.facts["Labels"].items()}
    assert (labels["title"], labels["licenses"]) == ("M3H", "Apache-2.0")
    assert labels["version"] == chart["appVersion"]


def test_the_cpu_image_has_neither_onnxruntime_gpu_nor_torch(image):
    program = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    installed = set(image.run_python("10001", program).split())
    assert {"m3h", "onnxruntime"} <= installed
    assert not {"onnxruntime-gpu", "torch", "pip"} & installed
    program = "import importlib.util as u, onnxruntime; print(u.find_spec('torch'))"
    assert image.run_python("10001", program) == "None\n"


def test_the_packages_have_the_versions_of_the_constraints(image):
    program = """
from importlib.metadata import distributions
print(*(f"{package.name}=={package.version}" for package in distributions()))
"""
    normal = re.compile(r"[-_.]+")
    pins = {
        normal.sub("-", pin).lower() for pin in (ROOT / "constraints.txt").read_text().splitlines()
    }
    installed = {
        normal.sub("-", package).lower() for package in image.run_python("10001", program).split()
    }
    # Debian's Python 3.11.2 needs async-timeout; the Python of the official image does not.
    unpinned = {package.partition("==")[0] for package in installed - pins}
    assert unpinned <= {"m3h", "async-timeout"}


@pytest.mark.parametrize("user", USERS)
def test_users_can_read_all_files_of_the_service_and_write_none(image, user):
    program = """
import os, stat
for folder, folders, files in os.walk("/"):
    if folder in ("/proc", "/sys", "/dev"):
        folders.clear()
        continue
    for path in (folder, *(os.path.join(folder, file) for file in files)):
        if os.path.islink(path):
            continue
        if folder.startswith("/app") and not os.access(path, os.R_OK):
            print("unreadable", path)
        scratch = os.path.isdir(path) and os.stat(path).st_mode & stat.S_ISVTX  # like /tmp
        if os.access(path, os.W_OK) and not scratch:
            print("writable", path)
"""
    assert image.run_python(user, program) == ""


@dataclass
class Service:
    container: str
    url: str

    def execute(self, *command: str) -> str:
        return check_output("podman", "exec", self.container, *command)

    def is_healthy(self) -> bool:
        """Returns the result of the image's health check."""
        return run("podman", "healthcheck", "run", self.container).returncode == 0


@contextmanager
def running(image: Image, user: str) -> Iterator[Service]:
    """Yields the service in a container with the restrictions of the chart, once it is healthy."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ["--env", f"M3H_PORT={port}", "--env", "M3H_ADMIN_PORT=0"]
    options = ["--detach", *RESTRICTED, "--user", user, *settings]
    container = check_output("podman", "run", *options, image.name).strip()
    service = Service(container, f"http://127.0.0.1:{port}")
    try:
        wait_until(service.is_healthy, container)
        yield service
    finally:
        check_output("podman", "rm", "--force", "--time", "0", container)


def wait_until(condition: Callable[[], bool], container: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"timed out after 120 s: {check_output('podman', 'logs', container)}")
        time.sleep(0.2)


def predict(url: str) -> dict[str, Any]:
    body = (ROOT / "examples" / "vitals_only.json").read_bytes()
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{url}/predict", content=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return {name: part for name, part in answer.json().items() if name not in ("id", "timing_ms")}


@pytest.fixture(scope="module")
def expected(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Returns the prediction of the service outside a container, from the same bundle."""
    process, url = service_process.start(bundle_dir, tmp_path_factory.mktemp("outside") / "log")
    try:
        return predict(url)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module", params=USERS)
def service(image: Image, request: pytest.FixtureRequest) -> Iterator[Service]:
    with running(image, request.param) as service:
        yield service


def test_predictions_equal_those_outside_a_container(service, expected):
    answer = predict(service.url)
    assert len(answer["predictions"]) == 44
    assert answer == expected


def test_the_script_of_helm_test_runs_in_the_image(service):
    program, golden = (ROOT / "helm" / "files" / name for name in ("predict.py", "golden.json"))
    command = ["python3", "-c", program.read_text(), service.url, golden.read_text()]
    assert "predicts 44 tasks" in service.execute(*command)


def test_the_service_writes_no_file(service):
    """With telemetry, ONNX Runtime would write a machine id and its events."""
    predict(service.url)
    assert service.execute("python3", "-c", "import os; print(*os.listdir('/tmp'))").split() == []


def test_sigterm_makes_the_service_unhealthy_and_then_ends_it_with_code_0(image):
    with running(image, USERS[1]) as service:
        address = ("127.0.0.1", httpx.URL(service.url).port)
        with socket.create_connection(address):  # an open connection makes the service drain
            check_output("podman", "kill", "--signal", "TERM", service.container)
            wait_until(lambda: not service.is_healthy(), service.container)
        start = time.monotonic()
        assert check_output("podman", "wait", service.container).strip() == "0"
        assert time.monotonic() - start < 30
