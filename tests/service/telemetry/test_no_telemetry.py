"""ONNX Runtime does not report to its vendor that the service or a bundle was used."""

import os
import subprocess
import sys

import pytest

SESSION = """
import sys
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


def telemetry_files(code, graph, folder):
    """Names of the files that a process writes when it runs `code` and then loads a graph."""
    folders = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | folders
    subprocess.run([sys.executable, "-c", code + SESSION, str(graph)], env=environment, check=True)
    return [path.name for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "module", ["service.runtime.bundle", "export.parity", "export.precision.convert"]
)
def test_no_telemetry_is_stored(module, bundle_dir, tmp_path):
    assert telemetry_files(f"import {module}", bundle_dir / "fusion.onnx", tmp_path) == []


def test_onnx_runtime_stores_telemetry_by_default(bundle_dir, tmp_path):
    """If this did not hold, the test above could not fail."""
    if not telemetry_files("", bundle_dir / "fusion.onnx", tmp_path):
        pytest.skip("this build of ONNX Runtime stores no telemetry")
