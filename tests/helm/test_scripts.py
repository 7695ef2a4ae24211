"""The scripts and the Redis of the chart, run without a cluster."""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import redis

from schemas.manifest import read_manifest
from tests.helm.chart import ALL_FEATURES, FOLDER, find_object, redis_container, render, server_spec
from tests.support.servers import service_process

PASSWORD = "a" * 16


def run(container, *args):
    """Runs a container's script with other arguments."""
    script = container["args"][0]
    command = [sys.executable, "-c", script, *map(str, args)]
    assert container["command"] == ["python3", "-c"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def listening(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def archive(tmp_path):
    """Returns a folder to serve and the SHA-256 of the archive in it."""
    folder = tmp_path / "served"
    (folder / "m3h-open").mkdir(parents=True)
    (folder / "m3h-open" / "manifest.json").write_text("{}")
    with tarfile.open(folder / "m3h.tar.gz", "w:gz") as tar:
        tar.add(folder / "m3h-open", "m3h-open")
        tar.add(folder / "m3h-open" / "manifest.json", "m3h-open/graph.onnx")
    return folder, hashlib.sha256((folder / "m3h.tar.gz").read_bytes()).hexdigest()


@pytest.fixture
def fetch():
    return server_spec(render(ALL_FEATURES))["initContainers"][0]


def test_the_bundle_is_unpacked_into_the_folder_of_the_service(fetch, archive, tmp_path):
    served, digest = archive
    target = tmp_path / "bundles"
    (target / "m3h-open").mkdir(parents=True)
    (target / "m3h-open" / "half").write_text("left by an interrupted attempt")
    with listening(partial(QuietHandler, directory=served)) as url:
        done = run(fetch, f"{url}/m3h.tar.gz", digest, target)
    assert (done.returncode, done.stderr) == (0, "")
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert files == ["m3h-open", "m3h-open/graph.onnx", "m3h-open/manifest.json"]


def test_a_file_with_another_digest_is_not_unpacked(fetch, archive, tmp_path):
    served, digest = archive
    with listening(partial(QuietHandler, directory=served)) as url:
        done = run(fetch, f"{url}/m3h.tar.gz", "0" * 64, tmp_path / "served" / "m3h-open")
    assert done.returncode == 1
    assert done.stderr == f"bundle.url: the file has the SHA-256 {digest}, expected {'0' * 64}\n"
    assert not list((served / "m3h-open").iterdir())


def _link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../outside"),
        tarfile.TarInfo("/outside"),
        _link("m3h-open/graph.onnx", "/etc/passwd", tarfile.SYMTYPE),
        _link("m3h-open/graph.onnx", "../outside", tarfile.LNKTYPE),
    ],
    ids=["parent", "absolute", "symbolic link", "hard link"],
)
def test_an_archive_with_a_link_or_an_outside_path_is_refused(fetch, member, tmp_path):
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as tar:
        tar.addfile(member)
    digest = hashlib.sha256((tmp_path / "bad.tar.gz").read_bytes()).hexdigest()
    (tmp_path / "bundles").mkdir()
    with listening(partial(QuietHandler, directory=tmp_path)) as url:
        done = run(fetch, f"{url}/bad.tar.gz", digest, tmp_path / "bundles")
    assert done.returncode == 1
    assert "link or a path outside" in done.stderr
    assert not list((tmp_path / "bundles").iterdir())


def test_the_own_redis_requires_its_password_and_does_not_persist(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    objects = render({"redis": {"mode": "own", "password": PASSWORD}})
    container = redis_container(objects)
    args = [arg.replace("$(REDIS_PASSWORD)", PASSWORD) for arg in container["args"]]
    address = tmp_path / "socket"
    command = [*container["command"], *args, "--port 0", f"--unixsocket {address}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("ready to accept" in line.lower() for line in process.stdout)
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(unix_socket_path=str(address)).ping()
            client = redis.Redis(
                unix_socket_path=str(address), password=PASSWORD, decode_responses=True
            )
            configuration = client.config_get("save", "appendonly", "maxmemory", "maxmemory-policy")
        finally:
            process.terminate()
    assert configuration == {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(256 * 2**20),
        "maxmemory-policy": "allkeys-lru",
    }


@pytest.fixture
def predict_container():
    (container,) = find_object(render({}), "Pod", "test")["spec"]["containers"]
    return container


def test_helm_test_passes_if_the_service_predicts(predict_container, bundle_dir, tmp_path):
    process, url = service_process.start(bundle_dir, tmp_path / "log", M3H_WORKERS="1")
    try:
        done = run(predict_container, url, predict_container["args"][2])
    finally:
        process.kill()
        process.communicate()
    assert (done.returncode, done.stderr) == (0, "")
    version = read_manifest(bundle_dir)[0].version
    assert done.stdout == f"m3h-open {version} predicts 44 tasks\n"


@pytest.mark.parametrize("predictions", [[], [{"task": "another"}]])
def test_helm_test_fails_if_the_service_predicts_other_tasks(predict_container, predictions):
    class FakeService(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"tasks": [{"name": "sepsis"}]})

        def do_POST(self):
            self.answer({"predictions": predictions})

        def answer(self, document):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_):
            pass

    with listening(FakeService) as url:
        done = run(predict_container, url, predict_container["args"][2])
    assert done.returncode == 1
    assert done.stderr.startswith("the service predicts the tasks")


def test_helm_test_sends_a_golden_request(predict_container, bundle_dir):
    request = json.loads(predict_container["args"][2])
    assert request == json.loads((FOLDER / "files/golden.json").read_text())
    golden = (bundle_dir / "golden.jsonl").read_text().splitlines()
    assert request in [json.loads(line)["request"] for line in golden]


def test_helm_test_connects_to_the_service_of_its_release():
    objects = render({"service": {"port": 8080}}, name="icu")
    (container,) = find_object(objects, "Pod", "test")["spec"]["containers"]
    assert (
        container["args"][1] == f"http://{find_object(objects, 'Service')['metadata']['name']}:8080"
    )
