"""A folder of jobs belongs to one run."""

import numpy as np
import pytest

from model.errors import RunError
from model.training.processes.jobs import claim_folder, write_arrays


def test_a_folder_of_another_run_is_refused(tmp_path):
    folder = tmp_path / "work"
    claim_folder(folder, {"cohort": "a", "training": {"epochs": 3}})
    write_arrays({"x": np.zeros(2)}, folder / "1.npz")
    claim_folder(folder, {"training": {"epochs": 3}, "cohort": "a"})
    with pytest.raises(RunError, match="work holds another run"):
        claim_folder(folder, {"cohort": "b", "training": {"epochs": 3}})


def test_a_folder_with_unidentified_files_is_refused(tmp_path):
    write_arrays({"x": np.zeros(2)}, tmp_path / "1.npz")
    with pytest.raises(RunError, match="holds another run"):
        claim_folder(tmp_path, {"cohort": "a"})
