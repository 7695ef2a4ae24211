"""A bundle for another hospital tells the prevalence there, and knows no less of a patient."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import logit

from export.recalibrate import RecalibrationError, log_odds, recalibrate
from model import labels
from model.cohort import Cohort, write
from model.cohorts import synthetic
from schemas.features import FeatureSpec
from schemas.manifest import BundleError
from service.bundle import Bundle
from service.engine import Engine


def cohort(folder, spec, keep=lambda _: True):
    records = (record for record in synthetic.patients(150, seed=5) if keep(record))
    parts = {"name": "elsewhere", "source": "made", "made_by": (synthetic, labels), "spec": spec}
    for _ in write(records, folder, **parts):
        pass
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A hospital where hypertension is charted in nearly everyone."""

    def ill(record):
        return record.outcomes.get("hypertension") or hash(record.patient) % 5 == 0

    folder = tmp_path_factory.mktemp("elsewhere")
    return cohort(folder, FeatureSpec.default(), ill)


@pytest.fixture(scope="module")
def moved(exported, elsewhere, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved") / "elsewhere"
    recalibrate(exported[0], elsewhere, folder, version="2.0.0")
    return folder


def hypertension(folder, samples):
    bundle = Bundle.load(folder)
    facts = next(f for f in bundle.manifest.tasks if f.task.name == "hypertension")
    return log_odds(Engine(bundle), samples)[:, facts.column], facts


def test_probabilities_move_to_the_local_prevalence(exported, moved, elsewhere):
    local = Cohort.load(elsewhere)
    column = next(i for i, t in enumerate(local.tasks) if t.name == "hypertension")
    observed = np.nanmean(local.samples.outcomes[:, column])
    p_before, p_after = (
        (1 / (1 + np.exp(-hypertension(folder, local.samples)[0]))).mean()
        for folder in (exported[0], moved)
    )
    assert abs(p_after - observed) < abs(p_before - observed) / 2


def test_the_ranking_of_patients_stays(exported, moved, elsewhere):
    samples = Cohort.load(elsewhere).samples
    before, after = (hypertension(folder, samples)[0] for folder in (exported[0], moved))
    assert (np.argsort(before, kind="stable") == np.argsort(after, kind="stable")).mean() > 0.95


def test_prevalence_intervals_and_sets_move_along(exported, moved, elsewhere):
    samples = Cohort.load(elsewhere).samples
    (_, before), (_, after) = (hypertension(folder, samples) for folder in (exported[0], moved))
    shift = Bundle.load(moved).manifest.recalibration.shift["hypertension"]
    assert shift > 0.2
    assert logit(after.prevalence) - logit(before.prevalence) == pytest.approx(shift)
    for name in ("scores", "low", "high"):
        old, new = (np.array(getattr(f.interval, name)) for f in (before, after))
        np.testing.assert_allclose(logit(new), logit(old) + shift)


def test_the_new_bundle_is_whole_and_its_golden_answers_hold(moved):
    bundle = Bundle.load(moved)
    Engine(bundle).replay_golden()
    assert bundle.manifest.version == "2.0.0"
    assert bundle.manifest.recalibration.cohort == "elsewhere"
    assert "Corrected for local prevalence" in (moved / "MODEL_CARD.md").read_text()


def test_a_bundle_is_corrected_once(moved, elsewhere, tmp_path):
    with pytest.raises(RecalibrationError, match="one for elsewhere already"):
        recalibrate(moved, elsewhere, tmp_path / "again", version="3")


def test_a_cohort_of_other_features_is_refused_and_nothing_is_lost(exported, tmp_path):
    spec = replace_spec(FeatureSpec.default())
    other = cohort(tmp_path / "other", spec)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "kept").touch()
    with pytest.raises(RecalibrationError, match="other variables, units or tokens"):
        recalibrate(exported[0], other, tmp_path / "bundle", version="2")
    assert (tmp_path / "bundle" / "kept").exists()


def replace_spec(spec):
    return spec.model_copy(update={"window_hours": 24.0})


def test_a_bundle_that_was_changed_is_not_corrected(moved, elsewhere, tmp_path):
    with pytest.raises(BundleError):
        recalibrate(elsewhere, elsewhere, tmp_path / "new", version="2")


def test_it_needs_no_torch(exported, elsewhere, tmp_path):
    code = (
        "import sys\n"
        "from export.cli import app\n"
        f"arguments = ['{exported[0]}', '{tmp_path / 'new'}', '--recalibrate', '{elsewhere}']\n"
        "app(arguments, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "log-odds moved by" in done.stdout
