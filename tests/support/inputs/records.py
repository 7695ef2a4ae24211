"""Records as lines of a file for `m3h-model cohort records`."""

import json


def as_line(record):
    """A reader's record as a line of a file."""
    payload = json.loads(record.payload.model_dump_json(exclude={"patient_id"}, exclude_unset=True))
    return json.dumps(
        {
            "patient_id": record.patient,
            "stay_id": record.stay,
            "group": record.site,
            "landmark_hours": record.landmark_hours,
            "payload": payload,
            "outcomes": dict(record.outcomes),
        }
    )
