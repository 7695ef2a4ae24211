"""A reader of FHIR Bundles, without a service."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas.features import FeatureSpec
from schemas.fhir.document import parse_document
from schemas.fhir.reader import FhirReader, to_payload
from schemas.fhir.record import Record


@pytest.fixture(scope="session")
def reader() -> Callable[[Any], Record]:
    """Reads a Bundle and its payload. Returns its record."""
    shared = FhirReader(FeatureSpec.default())

    def read(sent: Any) -> Record:
        record, _ = shared.read(parse_document(json.dumps(sent).encode()))
        to_payload(record)
        return record

    return read
