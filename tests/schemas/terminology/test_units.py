"""Spellings of units are converted correctly or refused. Nothing is guessed."""

import csv
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ucumvert import PintUcumRegistry

from schemas.features import FeatureSpec
from schemas.manifest import read_manifest
from schemas.terminology.units import candidate_codes, find_conversion
from schemas.variables import load_treatments, load_variables
from tests.schemas.test_variables import in_canonical

VARIABLES = {variable.name: variable for variable in load_variables()}


def spellings():
    """Returns by variable: spelling and its factor and offset, or None if it is unknown."""
    by_variable = defaultdict(list)
    with Path(__file__).with_name("units.tsv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            known = row["factor"] != "-"
            expected = (float(row["factor"]), float(row["offset"])) if known else None
            by_variable[row["variable"]].append((row["unit"], expected))
    return by_variable


SPELLINGS = spellings()


@pytest.fixture(scope="module")
def specs(bundle_dir):
    """The spec of this release and the spec of an older bundle."""
    return [FeatureSpec.default(), read_manifest(bundle_dir)[0].spec]


@pytest.mark.parametrize("variable", SPELLINGS)
def test_every_spelling_of_a_unit_converts_as_listed(specs, variable):
    for spec in specs:
        wrong = []
        for unit, expected in SPELLINGS[variable]:
            _, read = spec.look_up(variable, unit)
            same = (
                read is None
                if expected is None
                else read is not None
                and (read.factor, read.offset) == pytest.approx(expected, rel=2e-4, abs=1e-12)
            )
            if not same:
                wrong.append((unit, expected, read))
        assert wrong == []


@pytest.fixture(scope="module")
def ucum():
    return PintUcumRegistry()


_PARTS = [
    prefix + atom
    for atom, prefixes in {
        "g": "kmunpfd",
        "mol": "munpf",
        "L": "dcmunpf",
        "l": "dcmun",
        "eq": "mu",
        "[IU]": "kmun",
        "m": "cmun",
        "Pa": "kh",
        "s": "mun",
    }.items()
    for prefix in ("", *prefixes)
] + ["min", "h", "d", "m[Hg]", "mm[Hg]", "cm[H2O]", "bar", "mbar", "kat", "ukat", "10*3", "10*-6"]


@settings(max_examples=300, deadline=None)
@given(
    variable=st.sampled_from(
        [v for v in VARIABLES.values() if v.unit not in ("%", "Cel") and not v.dimensionless]
    ),
    top=st.lists(st.sampled_from(_PARTS), max_size=2),
    bottom=st.lists(st.sampled_from(_PARTS), max_size=2),
)
def test_conversions_agree_with_ucum(ucum, variable, top, bottom):
    unit = ".".join(top) + "".join(f"/{part}" for part in bottom)
    read = find_conversion(variable, unit) if unit else None
    if read is not None:
        assert read.offset == 0
        if "U/" in variable.unit:  # for an enzyme, international units mean U
            unit = unit.replace("[IU]", "U")
        assert read.factor == pytest.approx(in_canonical(ucum, variable, unit, 1.0), rel=2e-4)


_NOISE = st.lists(
    st.sampled_from([*"mµugkKLdDlPpHh[]{}()/.*^'%-+10369 \u200b\u00a0²³⁹", "10*", "per ", "mol"]),
    max_size=30,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.one_of(_NOISE, st.text(max_size=70)), st.sampled_from(list(VARIABLES.values())))
def test_any_text_is_handled_quickly(unit, variable):
    candidate_codes("umol/L.s")  # load the tables first
    started = time.process_time()
    find_conversion(variable, unit)
    assert time.process_time() - started < 0.2


@pytest.mark.parametrize(
    "unit",
    [
        "10*99999999/L",
        "10^999999999999/uL",
        "kg" + "9" * 50,
        "(" * 60,
        "((((g)))/L",
        "mg." * 20,
        "ﷺ" * 64,
        "/" * 64,
        "{" * 64,
        "x10^3" * 12,
        "1" * 64,
        "mg/dL" + "\u0300" * 59,
        "m" * 64,
    ],
)
def test_hostile_units_are_refused_quickly(unit):
    find_conversion(VARIABLES["creatinine"], "nmol/mL")  # load the library first
    started = time.process_time()
    assert find_conversion(VARIABLES["white_blood_cells"], unit) is None
    assert time.process_time() - started < 0.1


def test_a_leading_division_applies_to_the_next_unit_only():
    """`/L/U` is one per litre and unit, not a unit per litre."""
    assert find_conversion(VARIABLES["lipase"], "/L/U") is None
    assert find_conversion(VARIABLES["lipase"], "U/L").factor == 1


def test_mega_is_read_as_milli():
    """UCUM distinguishes m from M. Feeds in capital letters do not, and mean milli."""
    assert find_conversion(VARIABLES["sodium"], "MMOL/L").factor == 1
    assert find_conversion(VARIABLES["creatinine"], "Mg/dL").factor == 1
    assert find_conversion(VARIABLES["alanine_aminotransferase"], "MU/L").factor == pytest.approx(
        1e-3
    )


@pytest.mark.parametrize(
    ("spelled", "code"),
    [
        ("MCG/KG/MIN", "ug/kg/min"),
        ("µg/kg/min", "ug/kg/min"),
        ("ug.kg-1.min-1", "ug/kg/min"),
        ("micrograms per kilogram per minute", "ug/kg/min"),
        ("mcg/(kg*min)", "ug/kg/min"),
        ("Units/Hour", "U/h"),
        ("IU/hr", "[IU]/h"),
        ("mg / hr", "mg/h"),
        ("mL/hr", "mL/hr"),
    ],
)
def test_every_spelling_of_a_rate_unit_is_recognized(spelled, code):
    spec = FeatureSpec.default()
    assert spec.rate_unit(spelled) == code
    accepted_units = {unit for treatment in load_treatments() for unit in treatment.accepted_units}
    assert (code in accepted_units) == (code != "mL/hr")


def test_units_in_the_tables_do_not_load_the_library():
    code = (
        "import sys; from schemas.features import FeatureSpec; s = FeatureSpec.default();"
        "read = [s.look_up(n, u)[1].factor for n, u in"
        " (('creatinine', 'µmol/l'), ('heart_rate', 'beats per minute'), ('sodium', 'MMOL/L'))];"
        "assert 'pint' not in sys.modules; print(read)"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert answer.stdout.split()[-1] == b"1.0]"
