"""MIMIC-IV: the intensive care units of Beth Israel Deaconess, Boston (Johnson et al., 2023).

The reader takes the official layout, `hosp/` and `icu/` (CSV, gzipped or not), in the data folder
or below it. It also reads `note/radiology` (MIMIC-IV-Note) and the X-rays of MIMIC-CXR-JPG if they
are present. The open demo lacks `icu/chartevents` and `icu/inputevents`; the reader takes these
events from the demo's MEDS edition.

Times are the database's shifted wall times, read as UTC. A payload holds only data that were known
at its `as_of`: a result is known from the time at which it was stored, not from the blood draw.
Discharge summaries and diagnosis codes are written after the stay and are never an input.

The 300 million chart events do not fit in memory. Each large table is streamed once. The events of
each stay go to a temporary folder (`TMPDIR`) in partitions of some hundred stays; the records are
then made partition by partition.
"""

from model.cohorts.mimic_iv.records import read

__all__ = ["SOURCE", "read"]

SOURCE = (
    "MIMIC-IV (PhysioNet); the demo 2.2 (doi:10.13026/07hj-2a80) under the Open Database License "
    "1.0 (ODbL), the whole under the PhysioNet credentialed data use agreement"
)
