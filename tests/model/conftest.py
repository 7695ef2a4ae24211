"""Networks of coalitions, trained once for all tests that need them."""

import pytest

from model.tim.coalition_training import CoalitionTraining, all_jobs
from model.training.processes.jobs import write_arrays
from tests.support.inputs.cohorts import CHOSEN, SMALL, small_cohort


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder of briefly trained networks of five tasks, and their cohort."""
    folder, cohort = tmp_path_factory.mktemp("networks"), small_cohort()
    training = CoalitionTraining(cohort, SMALL)
    for job in all_jobs(len(CHOSEN), 120):
        write_arrays(training.run(job), folder / job.file)
    return folder, cohort
