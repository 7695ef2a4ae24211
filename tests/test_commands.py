"""Command line tools: `--version`, and `--help` without slow imports."""

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.main import get_command

SCRIPT = """
import sys
from {package} import app
app({arguments!r}, standalone_mode=False)
slow = {{"torch", "sklearn", "scipy", "onnx", "onnxruntime", "polars"}}
print("LOADED", sorted(slow & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("model.cli.main", ["--help"]),
        ("model.cli.main", ["train", "--help"]),
        ("model.cli.main", ["--version"]),
        ("export.cli", ["--help"]),
        ("export.cli", ["--version"]),
    ],
)
def test_help_and_version_import_no_slow_library(package, arguments):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(package=package, arguments=arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "LOADED []"
    if arguments == ["--version"]:
        command = f"m3h-{package.partition('.')[0]}"
        assert lines == [f"{command} {version('m3h')}"]
    else:
        assert "--version" in done.stdout or "train" in arguments


def test_version_with_a_value_sets_the_version_of_the_bundle(tmp_path):
    from typer.testing import CliRunner

    from export.cli import app

    done = CliRunner().invoke(app, [str(tmp_path), str(tmp_path / "b"), "--version", "2.0.0"])
    assert done.exit_code == 2
    assert done.stderr == f"m3h-export: {tmp_path} is not a checkpoint: it has no checkpoint.json\n"


def test_the_score_command_uses_the_landmark_of_the_report():
    pytest.importorskip("torch", reason="requires the extra 'train'")
    from model.cli.main import app
    from model.evaluation.folds import HEADLINE_HOURS

    (hours,) = [p for p in get_command(app).commands["score"].params if p.name == "hours"]
    assert hours.default == HEADLINE_HOURS
