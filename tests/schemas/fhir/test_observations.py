"""Observations: which are read, in which unit, and what the receipt lists about the others."""

import pytest

from tests.support.inputs import fhir_bundles as make


@pytest.mark.parametrize(
    ("code", "unit", "value"),
    [
        # US Core vital signs
        ("8867-4", "/min", 80),
        ("9279-1", "/min", 16),
        ("59408-5", "%", 96),
        ("2708-6", "%", 96),
        ("8310-5", "Cel", 37),
        ("29463-7", "kg", 80),
        ("8480-6", "mm[Hg]", 120),
        ("8462-4", "mm[Hg]", 80),
        ("8478-0", "mm[Hg]", 93),
        # laboratory codes of Synthea
        ("6299-2", "mg/dL", 14),
        ("38483-4", "mg/dL", 1),
        ("49765-1", "mg/dL", 9.1),
        ("2947-0", "mmol/L", 139),
        ("6298-4", "mmol/L", 4.1),
        ("2069-3", "mmol/L", 102),
        ("20565-8", "mmol/L", 24),
        ("2339-0", "mg/dL", 98),
        ("4548-4", "%", 5.9),
        ("6690-2", "10*3/uL", 7),
        ("789-8", "10*6/uL", 4.5),
        ("718-7", "g/dL", 13),
        ("4544-3", "%", 40),
        ("20570-8", "%", 40),
        ("777-3", "10*3/uL", 230),
        ("33762-6", "pg/mL", 400),
        ("2571-8", "mg/dL", 120),
    ],
)
def test_each_code_of_us_core_and_synthea_is_read(reader, code, unit, value):
    record = reader(make.bundle(make.observation(code, value, unit, 2)))
    ((name, read_unit),) = record.groups
    assert (name, read_unit) == (f"loinc:{code}", unit)
    assert record.spec.look_up(name, read_unit)[1] is not None
