"""Networks of some tasks, trained once for all tests that look at them."""

import pytest

from model.tim.coalition_training import Games, every_job
from model.training.jobs import keep
from tests.support.cohorts import CHOSEN, SMALL, small_cohort


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder of networks of five tasks, hardly trained, and their cohort."""
    folder, cohort = tmp_path_factory.mktemp("networks"), small_cohort()
    games = Games(cohort, SMALL)
    for job in every_job(len(CHOSEN), 120):
        keep(games.run(job), folder / job.file)
    return folder, cohort
