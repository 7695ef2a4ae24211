"""What the README tells a reader to do works as it is written."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


with socket.create_server(("127.0.0.1", 0)) as free:
    ADMIN_PORT = free.getsockname()[1]


@pytest.fixture(scope="module")
def url():
    """The service as `make run` starts it, on a free port."""
    command = [Path(sys.executable).parent / "m3h-serve", "--bundle", "bundles/m3h-open"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--admin-port", str(ADMIN_PORT)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process.stdout.readline().rpartition(" at ")[2].strip()
    process.terminate()
    process.wait(60)


def test_the_two_commands_are_there():
    commands = [line.split("#")[0].strip() for line in BLOCKS[0][1].splitlines()]
    assert commands == ["make run", "make test"]
    targets = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{c.split()[1]}:", targets, re.MULTILINE) for c in commands)


def test_the_curl_answers_with_44_predictions(url):
    if shutil.which("curl") is None:
        pytest.skip("curl is not there")
    (command,) = [
        body for kind, body in BLOCKS if kind == "sh" and "examples/septic_shock.json" in body
    ]
    command = command.replace("http://localhost:8000", url)
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    assert len(answer["predictions"]) == 44
    shown = json.loads(next(body for kind, body in BLOCKS if kind == "json"))
    real = next(p for p in answer["predictions"] if p["task"] == shown["task"])
    assert shown.keys() == real.keys()
    assert shown["means"] == real["means"]
    assert shown["probability"] == pytest.approx(real["probability"], abs=0.006)
    assert shown["prevalence"] == pytest.approx(real["prevalence"], abs=0.006)


def test_the_reasons_are_asked_for_as_shown(url):
    if shutil.which("curl") is None:
        pytest.skip("curl is not there")
    (command,) = [body for kind, body in BLOCKS if kind == "sh" and "explain=full" in body]
    command = command.replace("http://localhost:8000", url)
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, check=True)
    explanation = json.loads(done.stdout)["explanation"]
    assert explanation["modalities"].keys() >= {"pneumonia"}
    (told,) = explanation["variables"]
    assert told["task"] == "pneumonia"
    assert told["because"]


def test_a_deadline_and_another_bundle_are_asked_for_as_shown(url):
    if shutil.which("curl") is None:
        pytest.skip("curl is not there")
    (block,) = [body for kind, body in BLOCKS if kind == "sh" and "/admin/reload" in body]
    block = block.replace("http://localhost:8000", url)
    block = block.replace("localhost:8001", f"127.0.0.1:{ADMIN_PORT}")
    predict, reload = block.replace("\\\n", "").splitlines()

    def told_by(command):
        done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, check=True)
        return json.loads(done.stdout)

    for _ in range(100):  # on a busy machine it may take longer than the deadline
        answer = told_by(predict)
        if "predictions" in answer:
            break
        assert answer["status"] in (503, 504), answer
    assert len(answer["predictions"]) == 44
    assert told_by(reload)["digest"] == answer["model"]["digest"]


def test_the_matrix_is_there_as_json_and_as_csv(url, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not there")
    (block,) = [body for kind, body in BLOCKS if kind == "sh" and "localhost:8000/tim" in body]
    row, table = block.replace("http://localhost:8000", url).splitlines()
    ran = {"shell": True, "cwd": tmp_path, "capture_output": True}
    answer = json.loads(subprocess.run(row, check=True, **ran).stdout)
    assert answer["sources"] == ["sepsis"]
    assert len(answer["tasks"]) == 5
    subprocess.run(table, check=True, **ran)
    assert len((tmp_path / "tim.csv").read_text().splitlines()) == 1 + 44 * 43


def test_the_command_that_makes_the_matrix_takes_what_is_shown():
    """Run it is elsewhere (`tests/model/tim/test_matrix.py`): here it would take half an hour."""
    (line,) = [line for _, body in BLOCKS for line in body.splitlines() if " tim runs/" in line]
    tool = Path(sys.executable).parent / "m3h-model"
    env = os.environ | {"COLUMNS": "200"}
    told = subprocess.run([tool, "tim", "--help"], capture_output=True, check=True, env=env).stdout
    options = re.findall(r"--[\w-]+", line)
    assert options
    assert all(option in told.decode() for option in options)


def test_the_request_that_is_shown_is_one(url):
    request = [body for kind, body in BLOCKS if kind == "json"][1]
    import httpx

    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{url}/predict?strict=true", content=request, headers=headers)
    assert answer.status_code == 200, answer.text


def test_every_path_that_is_named_exists(url):
    import httpx

    for method, path in re.findall(r"`(GET|POST) (/[\w/-]*)`", README):
        answer = httpx.request(method, url + path)
        assert answer.status_code != 404, path
        assert answer.status_code != 405, path
    for link in re.findall(r"(?:\]\(|src=\")(?!http)([^)#\"]+)[)\"]", README):
        assert (ROOT / link).exists(), link


def test_the_training_commands_are_the_ones_that_the_tools_take(tmp_path):
    """Those of training and of local correction, on small synthetic cohorts."""
    block, local = (
        next(body for _, body in BLOCKS if what in body)
        for what in ("m3h-model train", "--recalibrate")
    )
    lines = [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("m3h")]
    assert [line.split()[:2] for line in lines] == [
        ["m3h-model", "cohort"],
        ["m3h-model", "cohort"],
        ["m3h-model", "train"],
        ["m3h-model", "score"],
        ["m3h-export", "runs/m3h-open"],
    ]
    config = tmp_path / "quick.toml"
    config.write_text("epochs = 1\nmembers = 2\n[net]\nwidth = 8\nimage_channels = [8]\n")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "M3H_DATA": str(tmp_path),
    }
    runs = tmp_path / "runs"
    # Not the patients that the bundle learned from: those are refused.
    elsewhere = "m3h-model cohort synthetic --masked --out runs/mimic_iv"
    for line in [*lines, elsewhere, local.strip()]:
        small = re.sub(r"cohort (eicu|nih_cxr) ", "cohort synthetic ", line)
        if " train " in small:
            small += f" --config {config}"
        if "cohort synthetic" in small and "nih_cxr" in small:  # the same patients again
            shutil.copytree(runs / "eicu", runs / "nih_cxr")
            continue
        done = subprocess.run(
            small,
            check=False,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{small}: {done.stderr[-2000:]}"
    for name in ("m3h-open", "local"):
        assert (tmp_path / "bundles" / name / "manifest.json").is_file()
