"""PhysioNet/CinC Challenge 2012: the first 48 h of adult intensive care stays (Silva et al., 2012).

The stays are of the Beth Israel Deaconess Medical Center, 2001 to 2008 (MIMIC-II). In-hospital
mortality and the length of stay have labels. The challenge holds no diagnosis: all diseases are
unlabelled, which is not "healthy".

The reader takes each set (A, B, C) in one of two forms: the official release (`set-a/*.txt` beside
`Outcomes-a.txt`), or a folder with `events.parquet` and `patients.csv.gz`. The data folder is a
set, or holds sets; several sets make one cohort. A patient has one stay, so far as is known.

- Only stays of 48 h and more were chosen. No patient dies or leaves before that time, so that the
  risk at 6 h is that of a patient who will stay for two days.
- The scores SAPS-I and SOFA use data of the whole first day and are never an input.
- Descriptors of -1 are missing. Heights and weights in error, temperatures of -17.8 degrees and
  blood pressures of 0 are outside the plausible ranges, and are missing as in a request. A heart or
  respiratory rate of 0 comes from a detached sensor and is left out.
- Invasive and non-invasive pressures are one variable. A non-invasive pressure is left out where an
  invasive pressure was charted at the same minute.
- `MechVent` is charted again while it lasts. Charts at most 8 h apart (99 % of them) are one course
  of mechanical ventilation; a course runs if its last chart is at most 8 h old.
- The total of the Glasgow Coma Scale has no variable. `records.GCS_PARTS` divides it.
- Troponin I and cholesterol have no variable and are left out.

The challenge holds no dates: every stay begins on January 1, 2005, in UTC.
"""

from model.cohorts.cinc2012.records import read

__all__ = ["SOURCE", "read"]

SOURCE = (
    "PhysioNet/Computing in Cardiology Challenge 2012 (Silva et al., Comput Cardiol 2012;39:245), "
    "Open Data Commons Attribution License 1.0 (ODC-By)"
)
