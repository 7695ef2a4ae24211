"""Findings are 0 at normal values and 1 at severe ones; their formulas are those of the sources."""

import math
import tomllib
from importlib.resources import files

import pytest
import torch
from pydantic import ValidationError

from model.knowledge.findings import (
    LARGEST,
    Finding,
    NoteFindings,
    SeriesFindings,
    TabularFindings,
    assertion_name,
    load_findings,
)
from model.knowledge.physiology import FORMULAS
from schemas.features import STATISTICS, TREATMENT_FEATURES, FeatureSpec, encode_note
from tests.support.inputs.cohorts import SPEC as MADE_SPEC

SPEC = FeatureSpec.default()
FINDINGS = load_findings(SPEC)
MEASURED = {name: f for name, f in FINDINGS.items() if f.variable is not None}
TABULAR = {name: f for name, f in FINDINGS.items() if f.column is not None}
VARIABLES = [variable.name for variable in SPEC.variables]
WORST_AND_LAST = [STATISTICS.index(name) for name in ("last", "minimum", "maximum")]


def series_findings(values, given=()):
    """The findings of a patient by name. `values`: of statistics, by variable."""
    statistics = torch.full((1, len(VARIABLES), len(STATISTICS)), torch.nan)
    for variable, value in values.items():
        statistics[0, VARIABLES.index(variable), WORST_AND_LAST] = value
    treatments = torch.full((1, len(SPEC.treatments), len(TREATMENT_FEATURES)), torch.nan)
    treatments[:, :, TREATMENT_FEATURES.index("given")] = 0.0
    for name in given:
        treatments[0, SPEC.treatment_index[name], TREATMENT_FEATURES.index("given")] = 1.0
    findings = SeriesFindings(FINDINGS, SPEC)
    return dict(zip(findings.names, findings(statistics, treatments)[0].tolist(), strict=True))


def note_findings(text):
    findings = NoteFindings(SPEC)
    tokens = torch.from_numpy(encode_note(text, SPEC).ids)[None]
    present = zip(findings.names, findings(tokens)[0].tolist(), strict=True)
    return {name: value for name, value in present if value}


@pytest.mark.parametrize("name", MEASURED)
def test_a_finding_is_0_at_normal_1_at_severe_and_limited_beyond(name):
    finding = MEASURED[name]
    span = finding.severe - finding.normal
    for value, severity in (
        (finding.normal, 0.0),
        (finding.severe, 1.0),
        (finding.severe + 1000 * span if span > 0 else -1e9, None),
    ):
        got = series_findings({finding.variable: value})[name]
        if severity is None:
            assert 1.0 <= got <= LARGEST + 1e-6
        else:
            assert got == pytest.approx(severity, abs=1e-4)


def test_a_normal_value_on_the_other_side_is_0():
    low = series_findings({"heart_rate": 30.0})
    assert low["heart_rate_high"] == 0
    assert low["heart_rate_low"] > 0


def test_a_patient_without_data_has_no_finding_before_the_findings_are_fitted():
    assert set(series_findings({}).values()) == {0.0}
    tabular = TabularFindings(FINDINGS, SPEC)
    values = torch.full((1, len(SPEC.tabular_names)), torch.nan)
    assert (tabular(values) == 0).all()


def test_a_variable_that_was_not_measured_counts_as_in_the_mean_of_the_training_patients():
    finding = MEASURED["heart_rate_high"]
    statistics = torch.full((4, len(VARIABLES), len(STATISTICS)), torch.nan)
    severe = torch.tensor([finding.normal, finding.severe, finding.severe])
    statistics[:3, VARIABLES.index("heart_rate"), WORST_AND_LAST] = severe[:, None]
    findings = SeriesFindings(FINDINGS, SPEC)
    findings.fit(statistics)
    treatments = torch.zeros(4, len(SPEC.treatments), len(TREATMENT_FEATURES))
    heart_rate = findings(statistics, treatments)[:, findings.names.index("heart_rate_high")]
    # The patient without a measurement is normal in the mean of the four, and then equals it.
    torch.testing.assert_close(heart_rate, torch.tensor([0.0, 1.0, 1.0, 0.5]), atol=1e-4, rtol=0)


def test_a_formula_with_a_missing_part_counts_as_in_the_mean_of_the_training_patients():
    statistics = torch.full((2, len(VARIABLES), len(STATISTICS)), torch.nan)
    statistics[0, VARIABLES.index("heart_rate")] = 150.0
    statistics[:, VARIABLES.index("systolic_blood_pressure")] = 75.0
    findings = SeriesFindings(FINDINGS, SPEC)
    findings.fit(statistics)
    treatments = torch.zeros(2, len(SPEC.treatments), len(TREATMENT_FEATURES))
    shock = findings(statistics, treatments)[:, findings.names.index("shock_index_high")]
    assert shock[1] == shock[0] / 2 > 0


def test_a_treatment_that_was_not_given_is_no_finding_after_the_findings_were_fitted():
    findings = SeriesFindings(FINDINGS, SPEC)
    findings.fit(torch.rand(3, len(VARIABLES), len(STATISTICS)))
    statistics = torch.full((1, len(VARIABLES), len(STATISTICS)), torch.nan)
    treatments = torch.full((1, len(SPEC.treatments), len(TREATMENT_FEATURES)), torch.nan)
    values = dict(zip(findings.names, findings(statistics, treatments)[0].tolist(), strict=True))
    rates = [name for name, finding in FINDINGS.items() if finding.rate_of is not None]
    assert all(values[name] == 0 for name in [*rates, *SPEC.treatment_index])


def test_a_missing_tabular_value_counts_as_in_the_mean_of_the_training_patients():
    name, finding = next(iter(TABULAR.items()))
    values = torch.full((3, len(SPEC.tabular_names)), torch.nan)
    column = SPEC.tabular_names.index(finding.column)
    values[:2, column] = torch.tensor([finding.normal, finding.severe])
    findings = TabularFindings(FINDINGS, SPEC)
    findings.fit(values)
    severity = findings(values)[:, findings.names.index(name)]
    torch.testing.assert_close(severity, torch.tensor([0.0, 1.0, 1 / 3]), atol=1e-4, rtol=0)


def test_a_logarithmic_finding_is_one_half_at_the_geometric_mean():
    name, finding = next((n, f) for n, f in MEASURED.items() if f.log)
    middle = math.sqrt(finding.normal * finding.severe)
    assert series_findings({finding.variable: middle})[name] == pytest.approx(0.5, abs=1e-4)


def test_a_finding_is_the_mean_of_the_latest_and_the_most_abnormal_value():
    finding = MEASURED["heart_rate_high"]
    statistics = torch.full((1, len(VARIABLES), len(STATISTICS)), torch.nan)
    row = statistics[0, VARIABLES.index("heart_rate")]
    row[STATISTICS.index("maximum")] = finding.severe
    row[STATISTICS.index("last")] = finding.normal
    treatments = torch.zeros(1, len(SPEC.treatments), len(TREATMENT_FEATURES))
    findings = SeriesFindings(FINDINGS, SPEC)
    column = findings.names.index("heart_rate_high")
    assert findings(statistics, treatments)[0, column].item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", TABULAR)
def test_a_tabular_finding_is_0_at_normal_and_1_at_severe(name):
    finding, findings = TABULAR[name], TabularFindings(FINDINGS, SPEC)
    values = torch.full((2, len(SPEC.tabular_names)), torch.nan)
    values[:, SPEC.tabular_names.index(finding.column)] = torch.tensor(
        [finding.normal, finding.severe]
    )
    severity = findings(values)[:, findings.names.index(name)]
    torch.testing.assert_close(severity, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)


def test_a_treatment_that_was_given_is_a_finding():
    findings = series_findings({}, given=["norepinephrine"])
    assert {name for name, value in findings.items() if value} == {"norepinephrine"}


def test_every_finding_of_the_file_exists_in_the_default_spec():
    """`load_findings` leaves out what a spec cannot have; the default spec has everything."""
    declared = tomllib.loads(files("model.knowledge").joinpath("findings.toml").read_text("utf-8"))
    assert declared.keys() == FINDINGS.keys()
    for _, parts in FORMULAS.values():
        assert set(parts) <= set(VARIABLES)


def test_normal_and_severe_values_are_plausible():
    plausible = dict(zip(VARIABLES, SPEC.plausible.tolist(), strict=True))
    for name, finding in MEASURED.items():
        low, high = plausible[finding.variable]
        assert low <= min(finding.normal, finding.severe), name
        assert max(finding.normal, finding.severe) <= high, name


def test_a_spec_without_a_variable_has_no_finding_of_it():
    names = {f.column for f in load_findings(MADE_SPEC).values()}
    assert None not in names
    assert "age" in names


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"normal": 1, "severe": 2}, id="no source"),
        pytest.param({"variable": "a", "column": "b", "normal": 1, "severe": 2}, id="two sources"),
        pytest.param({"formula": "unknown", "normal": 1, "severe": 2}, id="unknown formula"),
        pytest.param({"variable": "a", "normal": 1, "severe": 1}, id="no span"),
        pytest.param({"variable": "a", "normal": 0, "severe": 1, "log": True}, id="log of 0"),
    ],
)
def test_a_finding_that_cannot_be_computed_is_refused(fields):
    with pytest.raises(ValidationError):
        Finding.model_validate(fields)


def test_notes_that_name_a_disease_have_its_finding():
    assert note_findings("Pneumonia.")[assertion_name("pneumonia", "affirmed")] == 1.0
    assert note_findings("No evidence of pneumonia.") == {assertion_name("pneumonia", "denied"): 1}
    assert note_findings("Family updated at the bedside.") == {}


def test_mere_evidence_of_a_disease_counts_half():
    assert note_findings("On pressors.")[assertion_name("septic_shock", "affirmed")] == 0.5
    both = note_findings("On pressors. Septic shock.")
    assert both[assertion_name("septic_shock", "affirmed")] == 1.0


def test_a_spec_without_assertions_has_no_finding_of_notes():
    findings = NoteFindings(SPEC.model_copy(update={"assertions": ()}))
    assert findings.names == ()
    assert findings(torch.randint(0, 100, (2, 5))).shape == (2, 0)
