"""The study behind the report: trains every model on every fold and keeps the predictions.

A job is one model with one set of inputs, tested on data that it never learned from: a fold's
hospitals, or another database. Its predictions are a file; a job with a file is not run again, so a
study is resumable.

The training settings are tuned within the hospitals to learn from: each candidate is trained on
some of them and scored on the others. A hospital that tests a model never influences its settings.
"""

from model.evaluation.study.jobs import EXTERNAL, FOLDS, VERSION, Job, every_job, headline_jobs
from model.evaluation.study.results import MissingPredictionsError, StudyResults
from model.evaluation.study.runner import OpenStudy, Study
from model.evaluation.study.tuning import CANDIDATES, choose, every_trial, tuned

__all__ = [
    "CANDIDATES",
    "EXTERNAL",
    "FOLDS",
    "VERSION",
    "Job",
    "MissingPredictionsError",
    "OpenStudy",
    "Study",
    "StudyResults",
    "choose",
    "every_job",
    "every_trial",
    "headline_jobs",
    "tuned",
]
