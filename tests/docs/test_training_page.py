"""The commands of docs/training.md run on small synthetic cohorts."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from model.cli.main import app
from model.network.checkpoint import Checkpoint
from schemas.record import TrainingRecord, parse_record
from tests.docs.blocks import ROOT, blocks_of

BLOCKS = [
    block.body
    for block in blocks_of("docs/training.md")
    if "run on small cohorts" in (block.note or "")
]


def test_the_training_commands_produce_bundles(tmp_path):
    block, local = BLOCKS[0], BLOCKS[-1]
    lines = [line.split("#")[0].strip() for line in block.splitlines()]
    assert [line.split()[:2] for line in lines] == [
        ["m3h-model", "cohort"],
        ["m3h-model", "cohort"],
        ["m3h-model", "train"],
        ["m3h-model", "score"],
        ["m3h-model", "behaviour"],
        ["m3h-export", "runs/m3h-open"],
    ]
    config = tmp_path / "quick.toml"
    config.write_text(
        "epochs = 1\nmembers = 2\n[net]\nwidth = 8\nimage_channels = [8]\ntrees = {}\n"
    )
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "M3H_DATA": str(tmp_path),
    }
    runs = tmp_path / "runs"
    for line in [*lines, *local.splitlines()]:
        small = re.sub(r"cohort (eicu|nih_cxr) ", "cohort synthetic --patients 250 ", line)
        # Recalibration refuses the patients that the bundle learned from.
        small = small.replace("cohort mimic_iv ", "cohort synthetic --masked --patients 250 ")
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


def test_the_program_for_own_records_and_its_commands_produce_a_model(tmp_path, monkeypatch):
    program, commands = BLOCKS[1:-1]
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/training.md", "exec"), {})
    Path("quick.toml").write_text("epochs = 1\nmembers = 1\n[net]\nwidth = 8\ntrees = {}\n")
    for line in commands.splitlines():
        executable, *arguments = shlex.split(line)
        assert executable == "m3h-model"
        arguments += ["--config", "quick.toml"] if arguments[0] == "train" else []
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}: {done.output[-2000:]}"
    tasks = {task.name for task in Checkpoint.load(Path("runs/own-model")).facts.tasks}
    assert {"in_hospital_mortality", "length_of_stay", "septic_shock"} < tasks
    assert "discharge_disposition" not in tasks  # no record has a label


def test_the_page_shows_a_valid_record_and_all_its_fields():
    (shown,) = [b.body for b in blocks_of("docs/training.md") if b.language == "json"]
    assert parse_record(shown).outcomes["discharge_disposition"] == "home"
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in TrainingRecord.model_fields)
