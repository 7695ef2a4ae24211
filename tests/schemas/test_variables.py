"""The declarations of variables, checked against a UCUM library."""

import re

import pytest
from ucumvert import PintUcumRegistry

from schemas.variables import load_spellings, load_treatments, load_variables

VARIABLES = load_variables()
GRID = {
    "alb",
    "alp",
    "alt",
    "ast",
    "be",
    "bicar",
    "bili",
    "bili_dir",
    "bnd",
    "bun",
    "ca",
    "cai",
    "ck",
    "ckmb",
    "cl",
    "crea",
    "crp",
    "dbp",
    "fgn",
    "fio2",
    "glu",
    "hgb",
    "hr",
    "inr_pt",
    "k",
    "lact",
    "lymph",
    "map",
    "mch",
    "mchc",
    "mcv",
    "methb",
    "mg",
    "na",
    "neut",
    "o2sat",
    "pco2",
    "ph",
    "phos",
    "plt",
    "po2",
    "ptt",
    "resp",
    "sbp",
    "temp",
    "tnt",
    "urine",
    "wbc",
}

# Units that are equal by convention in medicine. Unit libraries do not know this.
BY_CONVENTION = {
    ("U/L", "[IU]/L"),
    ("u[IU]/mL", "mU/L"),
    ("u[IU]/mL", "uU/mL"),
    ("g/dL", "%"),
}
# HbA1c: the NGSP master equation, % = 0.09148 * mmol/mol + 2.152 (ngsp.org).
MASTER_EQUATION = {("hemoglobin_a1c", "mmol/mol")}

CONVERSIONS = [
    pytest.param(variable, unit, *conversion, id=f"{variable.name}-{unit}")
    for variable in VARIABLES
    for unit, conversion in variable.units.items()
    if (variable.unit, unit) not in BY_CONVENTION and (variable.name, unit) not in MASTER_EQUATION
]


@pytest.fixture(scope="module")
def ucum():
    return PintUcumRegistry()


def in_canonical(ucum, variable, unit, amount):
    """Converts an amount to the variable's canonical unit, with the molar mass if required.

    The library treats an equivalent as a mole. The variable declares the charges of an ion.
    """
    if "eq" in unit:
        amount /= variable.valence or 1
    # The library reads /L/U as /(L/U). UCUM divides from left to right.
    code = f"1{unit}" if unit.startswith("/") else unit
    given = ucum.Quantity(amount, ucum.from_ucum(code).units)
    target = ucum.from_ucum(variable.unit).units
    if not given.is_compatible_with(target):
        molar_mass = ucum.Quantity(variable.molar_mass, "g/mol")
        by_mass = (given * molar_mass, given / molar_mass)
        given = next(quantity for quantity in by_mass if quantity.is_compatible_with(target))
    return given.to(target).magnitude


@pytest.mark.parametrize(("variable", "unit", "factor", "offset"), CONVERSIONS)
def test_declared_conversions_agree_with_ucum(ucum, variable, unit, factor, offset):
    for amount in (1.0, 40.0):
        expected = in_canonical(ucum, variable, unit, amount)
        assert amount * factor + offset == pytest.approx(expected, rel=2e-4)


def test_every_column_of_the_hourly_grid_belongs_to_one_variable():
    columns = [column for variable in VARIABLES for column in variable.eicu]
    assert set(columns) >= GRID
    assert len(columns) == len(set(columns))


def test_each_loinc_and_item_id_belongs_to_one_variable():
    for codes in (
        [code for variable in VARIABLES for code in variable.loinc],
        [item for variable in VARIABLES for item in variable.mimic_iv]
        + [item for treatment in load_treatments() for item in treatment.mimic_iv],
    ):
        assert len(codes) == len(set(codes))


def has_check_digit(code):
    """Mod 10 (Luhn), LOINC Users' Guide, appendix C."""
    number, check = code.split("-")
    doubled = "".join(
        str(int(digit) * (2 if i % 2 == 0 else 1)) for i, digit in enumerate(reversed(number))
    )
    return (10 - sum(map(int, doubled)) % 10) % 10 == int(check)


@pytest.mark.parametrize("code", [c for v in VARIABLES for c in v.loinc])
def test_every_loinc_has_a_valid_check_digit(code):
    assert has_check_digit(code)


def test_every_source_unit_can_be_converted():
    spellings = load_spellings()
    for variable in VARIABLES:
        for unit in (*variable.eicu.values(), *variable.mimic_iv.values()):
            assert variable.conversion(spellings.get(unit, unit)) is not None, variable.name


def test_every_spelling_maps_to_an_accepted_unit():
    accepted_units = {unit for v in VARIABLES for unit in v.accepted_units}
    accepted_units |= {unit for t in load_treatments() for unit in t.accepted_units}
    assert {code for code in load_spellings().values() if code not in accepted_units} == set()


def test_only_scores_and_ratios_need_no_unit():
    without = {v.name for v in VARIABLES if v.conversion(None) is not None}
    assert without == {
        "gcs_eye",
        "gcs_verbal",
        "gcs_motor",
        "richmond_agitation_sedation_scale",
        "ph",
        "venous_ph",
        "inr",
    }


def test_the_epinephrine_pattern_does_not_match_norepinephrine():
    by_name = {t.name: re.compile(t.pattern, re.IGNORECASE) for t in load_treatments()}
    assert by_name["norepinephrine"].search("Norepinephrine (mcg/min)")
    assert not by_name["epinephrine"].search("Norepinephrine (mcg/min)")
    assert by_name["epinephrine"].search("Epinephrine (mcg/min)")
