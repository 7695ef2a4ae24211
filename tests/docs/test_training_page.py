"""The commands of docs/training.md run on small synthetic cohorts."""

import re
import shlex
import shutil
from pathlib import Path

from typer.testing import CliRunner

from export.cli import app as export_app
from model.cli.main import app
from model.network.checkpoint import Checkpoint
from schemas.record import TrainingRecord, parse_record
from tests.docs.blocks import ROOT, blocks_of

COMMANDS = {"m3h-model": app, "m3h-export": export_app}
BLOCKS = [
    block.body
    for block in blocks_of("docs/training.md")
    if "run on small cohorts" in (block.note or "")
]


def run(line):
    """Runs a command of the page in this process."""
    executable, *arguments = shlex.split(line)
    done = CliRunner().invoke(COMMANDS[executable], arguments)
    assert done.exit_code == 0, f"{line}: {done.output[-2000:]}"


def test_the_training_commands_produce_bundles(tmp_path, monkeypatch):
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
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M3H_DATA", str(tmp_path))
    net = "[net]\nwidth = 8\nimage_channels = [8]\ntrees = {}\n"
    Path("quick.toml").write_text(f"epochs = 1\nmembers = 2\n{net}")
    for line in [*lines, *local.splitlines()]:
        small = re.sub(r"cohort (eicu|nih_cxr) ", "cohort synthetic --patients 250 ", line)
        # Recalibration refuses the patients that the bundle learned from.
        small = small.replace("cohort mimic_iv ", "cohort synthetic --masked --patients 250 ")
        if " train " in small:
            small += " --config quick.toml"
        if small.startswith("m3h-export"):
            small += " --behaviour-gate 0"  # a model of few patients does not pass
        if "cohort synthetic" in small and "nih_cxr" in small:  # the same patients again
            shutil.copytree("runs/eicu", "runs/nih_cxr")
        else:
            run(small)
    for name in ("m3h-open", "local"):
        assert Path("bundles", name, "manifest.json").is_file()


def test_the_program_for_own_records_and_its_commands_produce_a_model(tmp_path, monkeypatch):
    program, commands = BLOCKS[1:-1]
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/training.md", "exec"), {})
    Path("quick.toml").write_text("epochs = 1\nmembers = 1\n[net]\nwidth = 8\ntrees = {}\n")
    for line in commands.splitlines():
        run(f"{line} --config quick.toml" if " train " in line else line)
    tasks = {task.name for task in Checkpoint.load(Path("runs/own-model")).facts.tasks}
    assert {"in_hospital_mortality", "length_of_stay", "septic_shock"} < tasks
    assert "discharge_disposition" not in tasks  # no record has a label


def test_the_page_shows_a_valid_record_and_all_its_fields():
    (shown,) = [b.body for b in blocks_of("docs/training.md") if b.language == "json"]
    assert parse_record(shown).outcomes["discharge_disposition"] == "home"
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in TrainingRecord.model_fields)
