"""`m3h-model cohort` with the spec of a bundle."""

import pytest
from typer.testing import CliRunner

from export.recalibrate import RecalibrationError, recalibrate
from model.cli.main import app
from model.cohorts.store import Cohort
from schemas.manifest import read_manifest


def make(folder, *options):
    command = ["cohort", "synthetic", "--data", str(folder), "--out", str(folder / "made")]
    return CliRunner().invoke(app, [*command, *map(str, options)])


@pytest.fixture(scope="module")
def like_the_bundle(bundle_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("like")
    assert make(folder, "--like", bundle_dir).exit_code == 0
    return folder / "made"


def test_a_cohort_like_a_bundle_has_its_spec(like_the_bundle, bundle_dir):
    manifest, _ = read_manifest(bundle_dir)
    assert Cohort.load(like_the_bundle).spec == manifest.spec


def test_the_shipped_bundle_is_recalibrated_by_a_cohort_like_it(
    like_the_bundle, bundle_dir, tmp_path
):
    _, recalibration = recalibrate(bundle_dir, like_the_bundle, tmp_path / "local")
    assert recalibration.patients == len(set(Cohort.load(like_the_bundle).samples.patient))


def test_a_cohort_with_another_spec_is_refused_with_the_command_that_helps(bundle_dir, tmp_path):
    assert make(tmp_path, "--image-side", 64).exit_code == 0
    with pytest.raises(RecalibrationError, match="m3h-model cohort --like"):
        recalibrate(bundle_dir, tmp_path / "made", tmp_path / "local")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--like", "nowhere"], "nowhere is not a bundle"),
        (["--like", "nowhere", "--image-side", "224"], "excludes"),
    ],
)
def test_a_wrong_bundle_or_contradicting_options_are_refused(options, reason, tmp_path):
    done = make(tmp_path, *options)
    assert done.exit_code == 2
    assert reason in " ".join(done.output.split())
    assert not (tmp_path / "made").exists()
