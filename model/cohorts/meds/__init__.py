"""Data in the Medical Event Data Standard (MEDS, version 0.3 and later; Arnrich et al., 2024).

The data are Parquet files below `data/`, or in the folder itself, with the columns `subject_id`,
`time`, `code` and `numeric_value` (or `value`, as some editions name it), and `text_value` for
notes. LOINC codes need no map. Other codes, and those of admissions, diagnoses and treatments, are
described by a map (`model.cohorts.meds.code_map`).

Times are wall times, read as UTC. MEDS has no storage times: an event is known at its time.
"""

from model.cohorts.meds.records import read

__all__ = ["SOURCE", "read"]

SOURCE = "a hospital's own data in the Medical Event Data Standard (MEDS)"
