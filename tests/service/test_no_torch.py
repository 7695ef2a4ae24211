"""Serving does not import torch or onnx."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
import service.cli
from service.http.app import create_app
from service.runtime.bundle import Bundle
from service.runtime.engine import Engine
from service.settings import Settings

engine = Engine(Bundle.load(Path(sys.argv[1]), "cpu"))
engine.replay_golden()
create_app(engine, Settings())
loaded = {"torch", "transformers", "onnx", "model", "export"} & sys.modules.keys()
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


def test_the_service_starts_without_torch_and_onnx(bundle_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle_dir)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
