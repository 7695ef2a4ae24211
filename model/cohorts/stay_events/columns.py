"""The columns of stays and of their events."""

import polars as pl

ID, NUMBER, TEXT, FLAG = pl.Int64(), pl.Float64(), pl.String(), pl.Boolean()
UTC = pl.Datetime("us", "UTC")

# Height is not a variable of the model but part of the tabular input.
HEIGHT = "height"

# A stay in the unit. `present_until`: the end of the stay or the death, if that is earlier.
# Outcomes: of the hospital stay. `codes`: ICD-9-CM and ICD-10-CM, null if it was not coded;
# `coding_complete`: whether a disease without a code is absent.
STAY_SCHEMA = {
    "subject_id": ID,
    "stay_id": ID,
    "site": TEXT,
    "intime": UTC,
    "present_until": UTC,
    "dischtime": UTC,
    "age": NUMBER,
    "sex": TEXT,
    "admission_source": TEXT,
    "unit_type": TEXT,
    "died": FLAG,
    "disposition": TEXT,
    "codes": pl.List(TEXT),
    "coding_complete": FLAG,
}

# The columns of each kind of event. `known`: the time from which the event was known.
# `code` and `uom`: code and unit as the source has them. A null `unit` is not accepted.
EVENT_SCHEMAS = {
    "observations": {
        "stay_id": ID,
        "variable": TEXT,
        "unit": TEXT,
        "value": NUMBER,
        "time": UTC,
        "known": UTC,
        "code": TEXT,
        "uom": TEXT,
    },
    "treatments": {
        "stay_id": ID,
        "name": TEXT,
        "time": UTC,
        "end": UTC,
        "rate": NUMBER,
        "unit": TEXT,
    },
    "notes": {"stay_id": ID, "time": UTC, "known": UTC, "kind": TEXT, "text": TEXT},
    "images": {"stay_id": ID, "time": UTC, "path": TEXT, "view": TEXT},
}
