"""Feature extraction as a whole: input formats, serialization of the spec, batches."""

import json

import numpy as np

from schemas.features import FeatureSpec, collate, extract_features
from schemas.payload import as_payload, parse_payload
from tests.support.inputs.chest_xrays import encoded, xray
from tests.support.inputs.feature_requests import AS_OF, SPEC, at, course, extract, series


def test_json_and_python_values_give_the_same_arrays():
    payload = as_payload(
        {
            "as_of": AS_OF,
            "tabular": {"age": 71.5, "weight_kg": 80.0, "admitted_at": at(24.3)},
            "series": [series("heart_rate", "/min", (1 / 3, 80.1), (0.7, 1e2))],
            "treatments": [course(rate=0.123, unit="ug/kg/min")],
            "notes": [{"time": at(1), "text": "Fièvre, toux."}],
            "images": [{"time": at(1), "media_type": "image/png", "data": encoded(xray())}],
        }
    )
    features, same = (
        extract_features(payload, SPEC),
        extract_features(parse_payload(payload.model_dump_json()), SPEC),
    )
    assert features.receipt == same.receipt
    for modality, arrays in features.arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, same.arrays[modality][name])


def test_a_spec_survives_serialization():
    dumped = json.loads(SPEC.model_dump_json())
    assert FeatureSpec(**dumped, tokenizer_json=SPEC.tokenizer_json) == SPEC


def test_a_batch_pads_tokens_with_zeros_at_the_end():
    notes = [extract(notes=[{"time": at(1), "text": t}]).arrays["notes"] for t in ("a", "a b c")]
    tokens = collate(notes)["tokens"]
    assert (tokens[0, len(notes[0]["tokens"]) :] == 0).all()
    assert (tokens[1] != 0).all()
