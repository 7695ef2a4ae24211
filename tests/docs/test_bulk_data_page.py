"""The commands of docs/integration/bulk-data.md run on the MIMIC-IV demo."""

import shlex
import tomllib

import pytest
from typer.testing import CliRunner

from model.cli.main import app
from model.cohorts.meds.code_map import CodeMap
from model.cohorts.store import Cohort
from tests.docs.blocks import blocks_of
from tests.support.inputs.mimic_iv_exports import DEMO, MEDS, Demo, write_fhir, write_omop

BLOCKS = {block.language: block.body for block in blocks_of("docs/integration/bulk-data.md")}


@pytest.fixture
def folder(open_data, tmp_path):
    data = open_data(DEMO, MEDS)
    demo = Demo.read(data).of_patients(0)
    write_omop(demo, tmp_path / "omop")
    write_fhir(demo, tmp_path / "fhir")
    (tmp_path / "meds").symlink_to(data / MEDS)
    return tmp_path


def test_the_commands_make_cohorts(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for line in BLOCKS["sh"].splitlines():
        executable, *arguments = shlex.split(line)
        assert executable == "m3h-model"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, f"{line}: {done.output[-2000:]}"
    for source in ("meds", "omop", "fhir"):
        assert "septic_shock" in Cohort.load(folder / "runs" / source).labelled_tasks()


def test_the_map_of_codes_is_valid():
    code_map = CodeMap.model_validate(tomllib.loads(BLOCKS["toml"]))
    assert code_map.variables["LAB//LACT"].variable == "lactate"
