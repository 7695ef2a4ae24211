"""Variables are recognized by every notation of their names and codes."""

from collections import Counter

import numpy as np
import pytest

from schemas.features import FeatureSpec
from schemas.manifest import read_manifest
from schemas.variables import load_rejected_names, load_variables, normalize_name
from tests.schemas.test_variables import has_check_digit
from tests.support.inputs.feature_requests import SPEC, extract, series, statistic


@pytest.fixture(scope="module")
def specs(bundle_dir):
    """The spec of this release and the spec of an older bundle."""
    return [SPEC, read_manifest(bundle_dir)[0].spec]


def read(spec, *given):
    return extract(spec, tabular={"age": 50}, series=given)


def last(features, variable):
    """Returns the last value of a variable, which must be the only one used."""
    assert [used.variable for used in features.receipt.used] == [variable]
    return statistic(features, variable, "last")


@pytest.mark.parametrize(
    ("code", "unit", "value", "variable", "canonical"),
    [
        ("14682-9", "umol/L", 176.8, "creatinine", 2.0),
        ("59826-8", "umol/L", 88.4, "creatinine", 1.0),
        ("14749-6", "mmol/L", 10, "glucose", 180.156),
        ("15074-8", "mmol/L", 5, "glucose", 90.078),
        ("14743-9", "mmol/L", 5, "glucose", 90.078),
        ("72516-8", "mmol/L", 5, "glucose", 90.078),
        ("22664-7", "mmol/L", 10, "blood_urea_nitrogen", 28.0134),
        ("14937-7", "mmol/L", 10, "blood_urea_nitrogen", 28.0134),
        ("59260-0", "mmol/L", 6.2, "hemoglobin", 9.991),
        ("30313-1", "g/dL", 9.9, "hemoglobin", 9.9),
        ("2601-3", "mmol/L", 0.82, "magnesium", 1.993),
        ("14631-6", "umol/L", 34.2, "bilirubin_total", 2.0),
        ("14629-0", "umol/L", 17.1, "bilirubin_direct", 1.0),
        ("14927-8", "mmol/L", 1.7, "triglycerides", 150.5),
        ("14933-6", "umol/L", 400, "uric_acid", 6.724),
        ("14879-1", "mmol/L", 1.0, "phosphate", 3.097),
        ("2000-8", "mmol/L", 2.3, "calcium", 9.218),
        ("12180-6", "mmol/L", 1.2, "calcium_ionized", 1.2),
        ("38230-9", "mg/dL", 4.8, "calcium_ionized", 1.198),
        ("14118-4", "mg/dL", 18, "lactate", 1.998),
        ("54347-0", "umol/L", 600, "albumin", 3.986),
        ("83108-1", "pmol/L", 100, "nt_probnp", 845.7),
        ("14723-1", "pmol/L", 500, "ferritin", 222.5),
        ("76485-2", "nmol/L", 952.4, "c_reactive_protein", 100),
        ("59261-8", "mmol/mol", 53, "hemoglobin_a1c", 7.0),
        ("11579-0", "m[IU]/L", 3, "thyrotropin", 3),
        ("8334-5", "Cel", 38.5, "temperature", 38.5),
        ("8333-7", "Cel", 38.5, "temperature", 38.5),
        ("60836-4", "Cel", 38.5, "temperature", 38.5),
        ("8332-9", "[degF]", 101.3, "temperature", 38.5),
        ("8328-7", "Cel", 37.5, "temperature", 37.5),
        ("60838-0", "Cel", 37.5, "temperature", 37.5),
        ("19994-3", "%", 40, "fraction_inspired_oxygen", 40),
        ("71835-3", "1", 0.4, "fraction_inspired_oxygen", 40),
        ("76248-4", "cm[H2O]", 10, "positive_end_expiratory_pressure", 10),
        ("76530-5", "cm[H2O]", 15, "mean_airway_pressure", 15),
        ("76531-3", "cm[H2O]", 25, "peak_inspiratory_pressure", 25),
        ("76009-0", "L/min", 7.5, "minute_volume", 7.5),
        ("20118-6", "mL", 470, "tidal_volume_observed", 470),
        ("19840-8", "/min", 20, "respiratory_rate", 20),
        ("8889-8", "/min", 80, "heart_rate", 80),
        ("54631-7", "{score}", -2, "richmond_agitation_sedation_scale", -2),
        ("41276-7", "mmol/L", 14, "anion_gap", 14),
        ("46418-0", "{INR}", 2.1, "inr", 2.1),
    ],
)
def test_loinc_codes_of_other_units_methods_and_sites_are_recognized(
    specs, code, unit, value, variable, canonical
):
    for spec in specs:
        features = read(spec, series(f"loinc:{code}", unit, (1, value)))
        assert last(features, variable) == pytest.approx(canonical, rel=2e-3)


@pytest.mark.parametrize(
    "name",
    [
        *("loinc:2160-0", "LOINC:2160-0", "Loinc: 2160-0", " loinc:2160-0 ", "2160-0", "LN:2160-0"),
        *("http://loinc.org|2160-0", "https://loinc.org/2160-0", "http://loinc.org/2160-0"),
        *("urn:oid:2.16.840.1.113883.6.1|2160-0", "2160-0^Creatinine^LN", "LOINC 2160-0"),
        *("creatinine", "Creatinine", "CREATININE", " creatinine ", "Creat", "serum creatinine"),
    ],
)
def test_every_notation_of_a_name_or_code_is_recognized(specs, name):
    for spec in specs:
        assert last(read(spec, series(name, "mg/dL", (1, 2.0))), "creatinine") == 2.0


@pytest.mark.parametrize(
    ("name", "unit", "variable"),
    [
        ("Heart Rate", "bpm", "heart_rate"),
        ("heart-rate", "bpm", "heart_rate"),
        ("HR", "bpm", "heart_rate"),
        ("SpO2", "%", "oxygen_saturation"),
        ("FiO2", "%", "fraction_inspired_oxygen"),
        ("Glasgow Coma Scale, eye opening", None, "gcs_eye"),
        ("Bilirubin, total", "mg/dL", "bilirubin_total"),
        ("WBC", "K/uL", "white_blood_cells"),
        ("Hämoglobin", "g/dL", None),
        ("troponin", "ng/mL", None),
        ("urea", "mg/dL", None),
        ("2160-1", "mg/dL", None),
        ("22160-0", "mg/dL", None),
        ("snomed:2160-0", "mg/dL", None),
        ("creatinine " * 30, "mg/dL", None),
    ],
)
def test_only_unambiguous_names_are_recognized(name, unit, variable):
    features = read(SPEC, series(name, unit, (1, 4.0)), series("ph", None, (1, 7.4)))
    used = [entry.variable for entry in features.receipt.used]
    ignored = [(entry.pointer, entry.reason) for entry in features.receipt.ignored]
    if variable is None:
        assert (used, ignored) == (["ph"], [("/series/0", "unknown_variable")])
    else:
        assert variable in [*used, SPEC.variables[SPEC.find_variable(name)].name]


def test_no_name_is_ambiguous():
    names = [
        key
        for v in load_variables()
        for key in {normalize_name(n) for n in (v.name, v.display, *v.aliases)}
        | {f"loinc:{code}" for code in v.loinc}
    ]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert load_rejected_names().keys() & set(names) == set()


@pytest.mark.parametrize("code", ["14682-9", "14749-6", "22664-7", "59260-0", "2601-3", "2160-0"])
def test_a_loinc_does_not_replace_a_missing_unit(code):
    features = read(SPEC, series(f"loinc:{code}", None, (1, 5.0)))
    assert [entry.reason for entry in features.receipt.ignored] == ["unit_required"]
    assert "series" not in features.arrays


@pytest.mark.parametrize(
    ("code", "unit"), [("22664-7", "mg/dL"), ("72903-8", "mg/dL"), ("59261-8", "%")]
)
def test_a_moles_only_code_is_refused_in_mass_units(code, unit):
    """The mass of urea differs from that of its nitrogen, and IFCC fractions from NGSP ones."""
    features = read(SPEC, series(f"loinc:{code}", unit, (1, 20.0)))
    assert [entry.reason for entry in features.receipt.ignored] == ["unknown_unit"]


@pytest.mark.parametrize("name", ["loinc:9269-2", "9269-2", "GCS", "GCS total", "LOINC:3091-6"])
def test_a_rejected_name_gives_a_warning(name):
    features = read(SPEC, series(name, "mg/dL", (2, 8.0)), series(name, "mg/dL", (1, 9.0)))
    assert [entry.reason for entry in features.receipt.ignored] == ["unknown_variable"] * 2
    (warning,) = features.receipt.warnings
    assert (
        warning == features.receipt.ignored[0].detail == load_rejected_names()[normalize_name(name)]
    )


@pytest.mark.parametrize("name", [n for n in load_rejected_names() if n.startswith("loinc:")])
def test_rejected_codes_have_a_valid_check_digit(name):
    assert has_check_digit(name.removeprefix("loinc:"))


def test_declarations_of_the_bundle_take_precedence(bundle_dir):
    spec = read_manifest(bundle_dir)[0].spec
    creatinine = spec.variables[spec.variable_index["creatinine"]]
    own = creatinine.model_copy(
        update={"units": {"mg/L": (0.2, 0.0)}, "loinc": ("2160-0", "2345-7"), "plausible": (0, 9)}
    )
    others = tuple(v for v in spec.variables if v.name != "creatinine")
    fields = spec.model_dump() | {"tokenizer_json": spec.tokenizer_json}
    changed = FeatureSpec(**fields | {"variables": (*others, own)})
    index, own_conversion = changed.look_up("creatinine", "mg/L")
    assert own_conversion.factor == 0.2
    assert changed.look_up("creatinine", "umol/L")[1].factor == 0.011312
    assert np.array_equal(changed.plausible[index], (0, 9))
    other_unit = own.model_copy(update={"unit": "umol/L", "units": {}})
    foreign = FeatureSpec(**fields | {"variables": (other_unit,)})
    assert foreign.extended_variables == (other_unit,)
