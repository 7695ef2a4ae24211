"""The image that the Dockerfile describes: built for real, and run as a cluster runs it.

A Debian that is made here stands in for the official image of Python.
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

from tests.support import service_process

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "image"
BASE = "docker.io/library/python:3.11-slim-bookworm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "m3h"

# No systemd, no daemon and nothing of the user's own containers is needed.
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
# As the chart's pods have it: no user of that number is known, and only /tmp can be written.
RESTRICTED = [
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--passwd=false", "--network", "host"),
]
USERS = ["10001", "1000660000:0"]  # that of the image; one that OpenShift makes up, of the group 0


def tried(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def succeeded(*command: object, **environment: str) -> str:
    """What it prints; why not, if it fails."""
    done = tried(*command, **environment)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


# ---------------------------------------------------------------------------------- what is written


def test_the_linter_of_dockerfiles_has_nothing_to_say():
    hadolint = Path(sys.executable).parent / "hadolint"
    assert succeeded(hadolint, ROOT / "Dockerfile") == ""


def test_images_are_named_as_the_chart_asks_for_them():
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    for target, image, suffix in (
        ("gpu", values["image"], ""),
        ("cpu", values["image"], "-cpu"),
        ("train", values["training"]["image"], ""),
    ):
        tag = f"{image['repository']}:{chart['appVersion']}{suffix}"
        assert f"--target {target} --tag {tag} " in succeeded(SCRIPT, target, BUILDER="echo")


def test_it_says_which_images_there_are_and_which_program_is_missing():
    unknown = tried(SCRIPT, "tpu")
    assert (unknown.returncode, "gpu, cpu and train" in unknown.stderr) == (2, True)
    alone = tried(SCRIPT, "cpu", BUILDER="no-such-builder")
    assert (alone.returncode, "no-such-builder is needed" in alone.stderr) == (1, True)


def test_a_release_names_its_base_by_digest():
    digest = f"@sha256:{'a' * 64}"
    for given in ({}, {"PYTHON_DIGEST": "3.11"}, {"PYTHON_DIGEST": "@sha256:abc"}):
        refused = tried(SCRIPT, "cpu", BUILDER="echo", RELEASE="yes", **given)
        assert refused.returncode == 2
        assert "PYTHON_DIGEST" in refused.stderr
    said = succeeded(SCRIPT, "cpu", BUILDER="echo", RELEASE="yes", PYTHON_DIGEST=digest)
    assert f"--build-arg PYTHON_DIGEST={digest} " in said


# ----------------------------------------------------------------------------- what is made and run


@pytest.fixture(scope="module")
def containers() -> Iterator[None]:
    """Buildah and podman, with the base as their only image; or the reason why not."""
    for program in ("buildah", "debootstrap", "podman", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not there")
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    base = _made_base()
    folders = TemporaryDirectory(prefix="m3h-image-", dir="/var/tmp")  # /tmp may be in memory
    with folders as folder, pytest.MonkeyPatch.context() as patch:
        storage, engine = Path(folder, "storage.conf"), Path(folder, "containers.conf")
        engine.write_text(CONTAINERS.format(folder=folder))
        patch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
        patch.setenv("CONTAINERS_CONF", str(engine))
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        try:
            for driver in ("overlay", "vfs"):  # vfs copies every layer, and works everywhere
                storage.write_text(STORAGE.format(driver=driver, folder=folder))
                imported = tried("podman", "import", base, BASE)
                if imported.returncode == 0:
                    break
            started = tried("podman", "run", "--rm", "--pull=never", *RESTRICTED, BASE, "true")
            for done in (imported, started):
                if done.returncode != 0:
                    pytest.skip(f"no container runs here: {done.stderr.strip().splitlines()[-1]}")
            yield
        finally:
            tried("podman", "rm", "--all", "--force")
            tried("buildah", "rm", "--all")
            tried("umount", "--recursive", Path(folder, "overlay", "overlay"))


def _made_base() -> Path:
    """A Debian with Python, made once for each user of this machine."""
    archive = CACHE / "bookworm-python.tar"
    if archive.is_file():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=CACHE) as folder:
        root, packed = Path(folder, "root"), Path(folder, "packed.tar")
        packages = "--include=python3,python3-venv,ca-certificates"
        made = tried("debootstrap", "--variant=minbase", packages, "bookworm", root)
        if made.returncode != 0:
            pytest.skip(f"debootstrap cannot make a Debian here: {made.stdout[-500:]}")
        left = [f"--exclude=./{path}/*" for path in ("proc", "sys", "var/cache/apt", "var/lib/apt")]
        succeeded("tar", "--create", "--file", packed, "--directory", root, *left, ".")
        packed.rename(archive)
    return archive


def _where_pip_looks(folder: Path) -> list[str]:
    """The builder's options with which pip finds packages in the build where it finds them here."""
    listed = succeeded(sys.executable, "-m", "pip", "config", "list")
    names = "index-url|extra-index-url|find-links|no-index|trusted-host|proxy|cert"
    # The environment is listed first, and goes before the files.
    found = {
        name: " ".join(literal_eval(value).split())
        for name, value in reversed(re.findall(rf"^\S+\.({names})=(.*)$", listed, re.MULTILINE))
    }
    file = folder / "pip.conf"
    file.write_text(
        "\n".join(["[global]", *(f"{name} = {value}" for name, value in found.items())])
    )
    paths = {Path(word) for value in found.values() for word in value.split()}
    volumes = [
        f"--volume={path}:{path}:ro" for path in paths if path.is_absolute() and path.exists()
    ]
    return [f"--secret=id=pip.conf,src={file}", *volumes]


@dataclass
class Image:
    name: str
    facts: dict[str, Any]

    def says(self, user: str, program: str) -> str:
        """What a Python program prints in it, as a user. Its files are as they are in the image."""
        options = ["--rm", "--network", "none", "--user", user, "--entrypoint", "python3"]
        return succeeded("podman", "run", *options, self.name, "-c", program)


@pytest.fixture(scope="module")
def image(containers: None, tmp_path_factory: pytest.TempPathFactory) -> Image:
    options = _where_pip_looks(tmp_path_factory.mktemp("pip"))
    options = ["--pull-never", "--layers=false", *options]
    name = succeeded(SCRIPT, "cpu", *options, BUILDER="buildah").split()[-3]
    (facts,) = json.loads(succeeded("podman", "image", "inspect", name))
    return Image(name, facts)


def test_it_is_small_and_starts_as_a_numbered_user_without_a_shell(image):
    assert image.facts["Size"] <= 600e6
    config = image.facts["Config"]
    assert int(config["User"]) > 0
    assert config["Entrypoint"] == ["m3h-serve"]
    assert image.facts["Healthcheck"]["Test"][0] == "CMD"


def test_its_labels_say_what_it_is(image):
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    labels = {name.rpartition(".")[2]: text for name, text in image.facts["Labels"].items()}
    assert (labels["title"], labels["licenses"]) == ("M3H", "Apache-2.0")
    assert labels["version"] == chart["appVersion"]


def test_of_both_builds_of_onnx_runtime_it_has_the_one_for_processors_and_no_torch(image):
    program = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    installed = set(image.says("10001", program).split())
    assert {"m3h", "onnxruntime"} <= installed
    assert not {"onnxruntime-gpu", "torch", "pip"} & installed
    finds = "import importlib.util as u, onnxruntime; print(u.find_spec('torch'))"
    assert image.says("10001", finds) == "None\n"


def test_its_packages_are_those_that_this_project_is_tested_with(image):
    program = """
from importlib.metadata import distributions
print(*(f"{found.name}=={found.version}" for found in distributions()))
"""
    normal = re.compile(r"[-_.]+")
    pins = {
        normal.sub("-", pin).lower() for pin in (ROOT / "constraints.txt").read_text().splitlines()
    }
    installed = {normal.sub("-", found).lower() for found in image.says("10001", program).split()}
    # That of Python 3.11.2, Debian's; the official image has a newer one.
    unpinned = {found.partition("==")[0] for found in installed - pins}
    assert unpinned <= {"m3h", "async-timeout"}


@pytest.mark.parametrize("user", USERS)
def test_of_its_files_a_user_reads_all_that_are_of_the_service_and_can_write_none(image, user):
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
    assert image.says(user, program) == ""


@dataclass
class Service:
    container: str
    url: str

    def executed(self, *command: str) -> str:
        return succeeded("podman", "exec", self.container, *command)

    def is_healthy(self) -> bool:
        """What the image's own check says."""
        return tried("podman", "healthcheck", "run", self.container).returncode == 0


@contextmanager
def running(image: Image, user: str) -> Iterator[Service]:
    """The service, once it is healthy, in a container that may do as little as the chart's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ["--env", f"M3H_PORT={port}", "--env", "M3H_ADMIN_PORT=0"]
    options = ["--detach", *RESTRICTED, "--user", user, *settings]
    container = succeeded("podman", "run", *options, image.name).strip()
    service = Service(container, f"http://127.0.0.1:{port}")
    try:
        until(service.is_healthy, container)
        yield service
    finally:
        succeeded("podman", "rm", "--force", "--time", "0", container)


def until(true: Callable[[], bool], container: str) -> None:
    end = time.monotonic() + 120
    while not true():
        if time.monotonic() > end:
            pytest.fail(f"it did not come to be: {succeeded('podman', 'logs', container)}")
        time.sleep(0.2)


def predicted(url: str) -> dict[str, Any]:
    body = (ROOT / "examples" / "vitals_only.json").read_bytes()
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{url}/predict", content=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return {name: part for name, part in answer.json().items() if name not in ("id", "timing_ms")}


@pytest.fixture(scope="module")
def expected(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the service says outside a container, of the same bundle."""
    process, url = service_process.start(bundle_dir, tmp_path_factory.mktemp("outside") / "log")
    try:
        return predicted(url)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module", params=USERS)
def service(image: Image, request: pytest.FixtureRequest) -> Iterator[Service]:
    with running(image, request.param) as found:
        yield found


def test_it_predicts_what_the_service_predicts_outside_a_container(service, expected):
    found = predicted(service.url)
    assert len(found["predictions"]) == 44
    assert found == expected


def test_the_chart_can_test_it_with_its_own_python(service):
    program, golden = (ROOT / "helm" / "files" / name for name in ("predict.py", "golden.json"))
    command = ["python3", "-c", program.read_text(), service.url, golden.read_text()]
    assert "predicts 44 tasks" in service.executed(*command)


def test_it_writes_no_file(service):
    """ONNX Runtime would keep a number of the machine and what it has to tell its makers."""
    predicted(service.url)
    assert service.executed("python3", "-c", "import os; print(*os.listdir('/tmp'))").split() == []


def test_sigterm_makes_it_unhealthy_and_then_ends_it_cleanly(image):
    with running(image, USERS[1]) as service:
        address = ("127.0.0.1", httpx.URL(service.url).port)
        with socket.create_connection(address):  # for a caller who is there it drains
            succeeded("podman", "kill", "--signal", "TERM", service.container)
            until(lambda: not service.is_healthy(), service.container)
        begun = time.monotonic()
        assert succeeded("podman", "wait", service.container).strip() == "0"
        assert time.monotonic() - begun < 30
