"""TIM: sums of rows, intervals, agreement of halves, and the command."""

import tomllib
from itertools import chain

import numpy as np
import pytest
from typer.testing import CliRunner

from model.cli.main import app
from model.network.checkpoint import Checkpoint
from model.tim.coalition_training import (
    FOLDS,
    all_task_jobs,
    first_coalitions,
    single_task_jobs,
)
from model.tim.matrix import CoalitionValues, compute_tim, correlation
from tests.support.inputs.cohorts import CHOSEN, make_cohort, save


def test_a_row_adds_up_to_the_multitask_gain(trained):
    folder, cohort = trained
    found = compute_tim(
        CoalitionValues(folder, cohort), first_coalitions(len(CHOSEN), 120), "m3h-model tim …"
    )
    assert found.tasks == found.sources == CHOSEN
    values = CoalitionValues(folder, cohort)
    for source, row in enumerate(found.matrix):
        assert row[source] is None
        gain = [
            np.mean([values.of(job)[source][0] for job in all_task_jobs(len(CHOSEN), fold)])
            - np.mean([values.of(job)[source][0] for job in single_task_jobs(source, fold)])
            for fold in range(FOLDS)
        ]
        assert found.multitask_gain[source] == pytest.approx(np.mean(gain), abs=1e-5)
        assert found.gain_lower[source] < found.multitask_gain[source] < found.gain_upper[source]
        cells = [cell for cell in row if cell is not None]
        assert sum(cells) == pytest.approx(np.mean(gain), abs=1e-4)
    ordered = np.array([found.lower, found.matrix, found.upper], dtype=float)
    off = ~np.eye(len(CHOSEN), dtype=bool)
    assert (np.diff(ordered, axis=0)[:, off] > 0).all()
    np.testing.assert_allclose(np.array(found.mean_attention).sum(1), 1, atol=1e-4)
    assert -1 <= found.halves.lower <= found.halves.value <= found.halves.upper <= 1
    agreement = correlation(
        np.array(found.matrix, float), np.array(found.mean_attention), ranks=True
    )
    assert found.attention_agreement.value == pytest.approx(agreement.value, abs=0.05)
    assert found.patients == len(np.unique(cohort.samples.patient))
    assert found.cohort == cohort.digest


def test_too_few_coalitions_are_refused(trained):
    folder, cohort = trained
    with pytest.raises(ValueError, match="too few for 4 tasks"):
        compute_tim(CoalitionValues(folder, cohort), first_coalitions(len(CHOSEN), 8))


def test_matrices_are_compared_within_rows():
    random = np.random.default_rng(0)
    one, noise = random.normal(size=(2, 20, 20))
    np.fill_diagonal(one, np.nan)
    sums = np.arange(20.0)[:, None]  # a constant of a row has no effect
    alike = correlation(one + sums, one + noise + sums)
    assert alike.lower < alike.value < alike.upper
    assert alike.value == pytest.approx(1 / np.sqrt(2), abs=0.06)
    unlike = correlation(one + sums, noise + sums)
    assert unlike.lower < 0 < unlike.upper
    assert correlation(one, np.exp(3 * one), ranks=True).value == pytest.approx(1)
    one[3] = np.nan
    assert correlation(one, one).value == pytest.approx(1)


def test_a_constant_matrix_has_no_correlation():
    assert correlation(np.random.default_rng(0).normal(size=(4, 4)), np.eye(4) * np.nan + 1) is None
    assert correlation(np.random.default_rng(0).normal(size=(4, 4)), np.full((4, 4), 0.1)) is None


def test_halves_with_too_few_coalitions_have_no_agreement(trained):
    folder, cohort = trained
    assert (
        compute_tim(CoalitionValues(folder, cohort), first_coalitions(len(CHOSEN), 30)).halves
        is None
    )


TOML = """
members = 1
epochs = 1
[net]
width = 16
task_width = 8
image_channels = [8]
clusters = 2
"""


def run(*arguments):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_writes_the_matrix_and_groups_for_training(tmp_path):
    cohort, model, work = (tmp_path / name for name in ("cohort", "model", "work"))
    names = ("septic_shock", "sepsis", "length_of_stay")
    save(make_cohort(120).of_tasks(names), cohort)
    config = tmp_path / "small.toml"
    config.write_text(TOML)
    run("train", "--cohort", cohort, "--config", config, "--out", model)
    command = ("tim", model, "--cohort", cohort, "--work", work, "--device", "cpu")
    run(*command, "--coalitions", 24)
    few = Checkpoint.load(model).tim
    groups = tmp_path / "groups.toml"
    output = run(*command, "--coalitions", 36, "--suggest-groups", groups)
    assert "of 6 cells are certain" in output
    more = Checkpoint.load(model).tim
    assert (few.coalitions, more.coalitions) == (24, 36)
    assert more.tasks == names
    suggested = tomllib.loads(groups.read_text())
    assert sorted(chain(*suggested["net"]["groups"])) == sorted(names)
    config.write_text(TOML + groups.read_text().removeprefix("[net]"))
    run("train", "--cohort", cohort, "--config", config, "--out", tmp_path / "grouped")

    save(make_cohort(120, seed=1).of_tasks(names), tmp_path / "other")
    few = CliRunner().invoke(app, [*map(str, command), "--coalitions", "9"])
    assert few.exit_code == 2
    refused = CliRunner().invoke(
        app, [*map(str, command[:3]), str(tmp_path / "other"), *map(str, command[4:])]
    )
    assert refused.exit_code == 2
