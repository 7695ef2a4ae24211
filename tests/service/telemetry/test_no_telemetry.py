"""Nobody is told that this service, or a bundle, was used: ONNX Runtime would."""

import os
import subprocess
import sys

import pytest

SESSION = """
import sys
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def left_by(code, graph, folder):
    """What a process leaves behind that loads a graph after it ran `code`."""
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | places
    subprocess.run([sys.executable, "-c", code + SESSION, str(graph)], env=environment, check=True)
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("room", ["service.runtime.bundle", "export.parity", "export.precision"])
def test_nothing_is_kept_that_would_be_sent(room, bundle_dir, tmp_path):
    assert left_by(f"import {room}", bundle_dir / "fusion.onnx", tmp_path) == []


def test_otherwise_there_would_be_something(bundle_dir, tmp_path):
    """Or the test above says nothing."""
    if not left_by("", bundle_dir / "fusion.onnx", tmp_path):
        pytest.skip("this build of ONNX Runtime keeps nothing to send")
