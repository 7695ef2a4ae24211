"""What runs in pods besides the service, run here."""

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

from tests.helm.chart import EVERYTHING, FOLDER, one, render, server
from tests.support import service_process

PASSWORD = "a" * 16


def run(container, *args):
    """Its command, with other arguments behind the script."""
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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def archive(tmp_path):
    """A folder that a server shows, and the SHA-256 of the archive in it."""
    folder = tmp_path / "shown"
    (folder / "m3h-open").mkdir(parents=True)
    (folder / "m3h-open" / "manifest.json").write_text("{}")
    with tarfile.open(folder / "m3h.tar.gz", "w:gz") as tar:
        tar.add(folder / "m3h-open", "m3h-open")
        tar.add(folder / "m3h-open" / "manifest.json", "m3h-open/graph.onnx")
    return folder, hashlib.sha256((folder / "m3h.tar.gz").read_bytes()).hexdigest()


@pytest.fixture
def fetch():
    return server(render(EVERYTHING))["initContainers"][0]


def test_a_bundle_is_fetched_where_the_service_reads_it(fetch, archive, tmp_path):
    shown, digest = archive
    target = tmp_path / "bundles"
    (target / "m3h-open").mkdir(parents=True)
    (target / "m3h-open" / "half").write_text("of an attempt that was interrupted")
    with listening(partial(Quiet, directory=shown)) as url:
        done = run(fetch, f"{url}/m3h.tar.gz", digest, target)
    assert (done.returncode, done.stderr) == (0, "")
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert found == ["m3h-open", "m3h-open/graph.onnx", "m3h-open/manifest.json"]


def test_another_file_is_refused_before_it_is_unpacked(fetch, archive, tmp_path):
    shown, digest = archive
    with listening(partial(Quiet, directory=shown)) as url:
        done = run(fetch, f"{url}/m3h.tar.gz", "0" * 64, tmp_path / "shown" / "m3h-open")
    assert done.returncode == 1
    assert done.stderr == f"bundle.url: the file has the SHA-256 {digest}, not {'0' * 64}\n"
    assert not list((shown / "m3h-open").iterdir())


def test_a_file_that_would_be_written_elsewhere_is_refused(fetch, tmp_path):
    (tmp_path / "outside").write_text("")
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "outside", "../outside")
    digest = hashlib.sha256((tmp_path / "bad.tar.gz").read_bytes()).hexdigest()
    (tmp_path / "bundles").mkdir()
    with listening(partial(Quiet, directory=tmp_path)) as url:
        done = run(fetch, f"{url}/bad.tar.gz", digest, tmp_path / "bundles")
    assert done.returncode == 1
    assert "OutsideDestinationError" in done.stderr


def test_the_own_redis_wants_its_password_and_keeps_nothing(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not there")
    objects = render({"redis": {"mode": "own", "password": PASSWORD}})
    (container,) = one(objects, "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"]
    args = [arg.replace("$(REDIS_PASSWORD)", PASSWORD) for arg in container["args"]]
    at = tmp_path / "socket"
    command = [*container["command"], *args, "--port 0", f"--unixsocket {at}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("ready to accept" in line.lower() for line in process.stdout)
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(unix_socket_path=str(at)).ping()
            client = redis.Redis(unix_socket_path=str(at), password=PASSWORD, decode_responses=True)
            found = client.config_get("save", "appendonly", "maxmemory", "maxmemory-policy")
        finally:
            process.terminate()
    assert found == {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(256 * 2**20),
        "maxmemory-policy": "allkeys-lru",
    }


@pytest.fixture
def asks():
    (container,) = one(render({}), "Pod", "test")["spec"]["containers"]
    return container


def test_helm_test_passes_a_service_that_predicts(asks, bundle_dir, tmp_path):
    process, url = service_process.start(bundle_dir, tmp_path / "log", M3H_WORKERS="1")
    try:
        done = run(asks, url, asks["args"][2])
    finally:
        process.kill()
        process.communicate()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "m3h-open 1.0.0 predicts 44 tasks\n"


@pytest.mark.parametrize("predicts", [[], [{"task": "another"}]])
def test_helm_test_fails_a_service_that_does_not(asks, predicts):
    class Fake(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"tasks": [{"name": "sepsis"}]})

        def do_POST(self):
            self.answer({"predictions": predicts})

        def answer(self, document):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def log_message(self, *_):
            pass

    with listening(Fake) as url:
        done = run(asks, url, asks["args"][2])
    assert done.returncode == 1
    assert done.stderr.startswith("it predicts")


def test_helm_test_asks_with_a_golden_request(asks, bundle_dir):
    asked = json.loads(asks["args"][2])
    assert asked == json.loads((FOLDER / "files/golden.json").read_text())
    golden = (bundle_dir / "golden.jsonl").read_text().splitlines()
    assert asked in [json.loads(line)["request"] for line in golden]


def test_helm_test_asks_the_service_of_its_release():
    objects = render({"service": {"port": 8080}}, name="icu")
    (container,) = one(objects, "Pod", "test")["spec"]["containers"]
    assert container["args"][1] == f"http://{one(objects, 'Service')['metadata']['name']}:8080"
