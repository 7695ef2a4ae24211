"""The reader of the PhysioNet/CinC Challenge 2012."""

import gzip
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cohorts import LANDMARKS_HOURS, DataError, DataMissing
from model.cohorts.cinc2012 import read
from model.cohorts.cinc2012.records import GCS, GCS_PARTS, NOT_READ, VARIABLES, VENTILATION
from model.cohorts.cinc2012.stays import DESCRIPTORS, OUTCOMES
from schemas.features import FeatureSpec, extract_features
from schemas.variables import load_variables

SPEC = FeatureSpec.default()
STAY = {"Age": 71, "Gender": 0, "Height": -1, "Weight": 80.5, "ICUType": 3}
EVENTS = [
    (10, "HR", 90),
    (30, "NISysABP", 110),
    (30, "SysABP", 100),
    (40, "NISysABP", 112),
    (60, "GCS", 11),
    (70, "Temp", -17.8),
    (90, "Mg", 2.0),
    (7 * 60, "HR", 0),
    (8 * 60, "FiO2", 0.5),
    (25 * 60, "HR", 120),
    (26 * 60, "TroponinI", 4.0),
]


def write_text(folder, events=EVENTS, stay=STAY, name="b", outcome="5,-1,1"):
    """A set of one stay, as the challenge releases it."""
    (folder / f"set-{name}").mkdir(parents=True)
    lines = ["Time,Parameter,Value", "00:00,RecordID,142675"]
    lines += [f"00:00,{parameter},{value}" for parameter, value in stay.items()]
    lines += [f"{m // 60:02}:{m % 60:02},{parameter},{value}" for m, parameter, value in events]
    (folder / f"set-{name}/142675.txt").write_text("\n".join(lines) + "\n")
    (folder / f"Outcomes-{name}.txt").write_text(
        f"RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n142675,6,1,{outcome}\n"
    )
    return folder


def write_tables(folder, events=EVENTS, stay=STAY):
    """The same stay in tables."""
    folder.mkdir()
    known = {name: None if value == -1 else value for name, value in stay.items()}
    row = {"RecordID": 142675, **known, "Length_of_stay": 5, "In-hospital_death": 1}
    with gzip.open(folder / "patients.csv.gz", "wb") as file:
        pl.DataFrame([row]).write_csv(file)
    columns = {"minute": pl.Int16, "parameter": pl.Categorical, "value": pl.Float32}
    table = pl.DataFrame(events, list(columns), orient="row", strict=False).cast(columns)
    table = table.with_columns(RecordID=pl.lit(142675, pl.Int32))
    table.write_parquet(folder / "events.parquet")
    return folder


def at(records, hours):
    return next(record for record in records if record.landmark_hours == hours)


def values(record):
    """The values by variable. Pressures are two series."""
    found = {}
    for series in record.payload.series:
        found.setdefault(series.variable, []).extend(series.values)
    return found


def ventilation(minutes, hours, folder):
    record = at(read(write_text(folder, [(m, VENTILATION, 1) for m in minutes])), hours)
    as_of = record.payload.as_of

    def hours_ago(time):
        return time and (as_of - time).total_seconds() / 3600

    return [(hours_ago(t.start), hours_ago(t.end)) for t in record.payload.treatments]


def test_every_parameter_is_mapped_with_an_accepted_unit_or_left_out(open_data):
    path = open_data("cinc2012-set-a") / "cinc2012-set-a/events.parquet"
    parameters = set(pl.read_parquet(path)["parameter"].cast(pl.String).unique())
    assert parameters == {*VARIABLES, *NOT_READ, GCS, VENTILATION}
    for variable, unit in VARIABLES.values():
        index, conversion = SPEC.look_up(variable, unit)
        assert index is not None
        assert conversion is not None


def test_the_canonical_medians_of_the_set_are_those_of_the_variables(open_data):
    """A unit taken for another moves the median out of the typical range."""
    path = open_data("cinc2012-set-a") / "cinc2012-set-a/events.parquet"
    events = pl.read_parquet(path).group_by(pl.col("parameter").cast(pl.String))
    medians = dict(events.agg(pl.col("value").median()).iter_rows())
    variables = {variable.name: variable for variable in load_variables()}
    for parameter, (name, unit) in VARIABLES.items():
        factor, offset = variables[name].conversion(unit)
        low, high = variables[name].typical or variables[name].plausible
        assert low < factor * medians[parameter] + offset < high, parameter
    assert 1.5 < medians["Mg"] < 2.5  # mg/dL: mmol/L would be a dangerous excess


def test_set_a_has_its_published_deaths_and_each_stay_four_landmarks(open_data):
    data = open_data("cinc2012-set-a")
    records = list(islice(read(data), 400))
    assert Counter(record.landmark_hours for record in records) == dict.fromkeys(
        map(float, LANDMARKS_HOURS), 100
    )
    assert all(max(s.times) <= r.payload.as_of for r in records for s in r.payload.series)
    labels = {name for record in records for name in record.outcomes}
    assert labels == {"in_hospital_mortality", "length_of_stay"}
    patients = pl.read_csv(data / "cinc2012-set-a/patients.csv.gz", n_rows=100)
    assert sum(r.outcomes["in_hospital_mortality"] for r in records) == 4 * int(
        patients["In-hospital_death"].sum()
    )


@pytest.mark.parametrize("hours", LANDMARKS_HOURS)
def test_the_official_text_files_and_the_tables_give_the_same_payload(hours, tmp_path):
    text = at(read(write_text(tmp_path / "text")), hours)
    tables = at(read(write_tables(tmp_path / "tables")), hours)
    assert text == tables


def test_no_input_is_later_than_the_landmark(tmp_path):
    folder = write_text(tmp_path)
    assert values(at(read(folder), 6))["heart_rate"] == [90]
    assert values(at(read(folder), 24))["heart_rate"] == [90]
    assert values(at(read(folder), 48))["heart_rate"] == [90, 120]


def test_units_descriptors_and_the_unit_type_are_those_of_the_payload(tmp_path):
    record = at(read(write_text(tmp_path)), 24)
    tabular = record.payload.tabular
    assert (tabular.age, tabular.sex, tabular.height_cm) == (71, "female", None)
    assert (tabular.weight_kg, tabular.unit_type) == (80.5, "medical_icu")
    statistics = extract_features(record.payload, SPEC).arrays["series"]["statistics"]
    last = dict(zip([v.name for v in SPEC.variables], statistics[:, 0], strict=True))
    assert last["fraction_inspired_oxygen"] == 50
    assert last["magnesium"] == 2
    assert np.isnan(last["temperature"])


def test_an_invasive_pressure_replaces_the_cuff_at_the_same_minute(tmp_path):
    assert values(at(read(write_text(tmp_path)), 24))["systolic_blood_pressure"] == [112, 100]


def test_the_zero_of_a_detached_sensor_is_left_out(tmp_path):
    assert 0 not in values(at(read(write_text(tmp_path)), 24))["heart_rate"]


def test_a_coma_score_is_divided_into_parts_that_add_up_and_never_fall():
    totals = sorted(GCS_PARTS)
    assert totals == list(range(3, 16))
    for total in totals:
        assert sum(GCS_PARTS[total]) == total
    for lower, higher in pairwise(totals):
        assert all(a <= b for a, b in zip(GCS_PARTS[lower], GCS_PARTS[higher], strict=True))


def test_charts_of_ventilation_are_courses_that_run_for_eight_hours(tmp_path):
    minutes = [60, 5 * 60, 12 * 60]
    assert ventilation(minutes, 6, tmp_path / "6") == [(5, None)]
    assert ventilation(minutes, 12, tmp_path / "12") == [(11, None)]
    assert ventilation(minutes, 24, tmp_path / "24") == [(23, 12)]
    assert ventilation([60, 20 * 60], 24, tmp_path / "two") == [(23, 23), (4, None)]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 48 * 60), min_size=1, max_size=12))
def test_ventilation_at_a_landmark_does_not_depend_on_later_charts(tmp_path_factory, minutes):
    minutes = sorted(minutes)
    known = [minute for minute in minutes if minute <= 24 * 60]
    all_charts = ventilation(minutes, 24, tmp_path_factory.mktemp("all"))
    assert all_charts == ventilation(known, 24, tmp_path_factory.mktemp("known"))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("5,-1,1", {"in_hospital_mortality": True, "length_of_stay": 4}),
        ("-1,-1,0", {"in_hospital_mortality": False}),
        ("1,-1,0", {"in_hospital_mortality": False}),
    ],
)
def test_the_length_of_stay_is_the_days_that_remain_if_it_is_known(outcome, expected, tmp_path):
    record = at(read(write_text(tmp_path, outcome=outcome)), 24)
    assert record.outcomes == expected


def test_all_sets_below_the_folder_make_one_cohort(tmp_path):
    write_text(tmp_path, name="b")
    write_text(tmp_path, name="c")
    assert len(list(read(tmp_path))) == 2 * len(LANDMARKS_HOURS)
    assert len(list(read(tmp_path / "set-b"))) == len(LANDMARKS_HOURS)


@pytest.mark.parametrize(
    ("file", "damage", "error", "message"),
    [
        ("Outcomes-b.txt", None, DataMissing, r"Outcomes-b\.txt is missing"),
        ("Outcomes-b.txt", "RecordID\n142675\n", DataError, "has no column Length_of_stay"),
        ("Outcomes-b.txt", "RecordID,Length_of_stay,In-hospital_death\n", DataError, "no row"),
        ("set-b/142675.txt", "Time,Parameter,Value\n00:00,HR\n", DataError, "line 2: .* columns"),
        ("set-b/142675.txt", "t,p,v\nzebra,HR,90\n", DataError, "line 2: the time is not HH:MM"),
        ("set-b/142675.txt", "t,p,v\n00:01,HR,zebra\n", DataError, "line 2: a value is not"),
        ("set-b/142675.txt", None, DataMissing, "no set-"),
    ],
)
def test_a_missing_or_damaged_file_is_named(file, damage, error, message, tmp_path):
    path = write_text(tmp_path) / file
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    with pytest.raises(error, match=message) as caught:
        list(read(tmp_path))
    assert "zebra" not in str(caught.value)


def test_a_damaged_table_is_named(tmp_path):
    folder = write_tables(tmp_path / "tables")
    (folder / "events.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(DataError, match=r"events\.parquet is damaged"):
        list(read(folder))
    required = ("RecordID", *DESCRIPTORS, *OUTCOMES)
    header = ",".join(name for name in required if name != "ICUType")
    (folder / "patients.csv.gz").write_bytes(gzip.compress(f"{header}\n".encode()))
    with pytest.raises(DataError, match="has no column ICUType"):
        list(read(folder))


def test_the_current_folder_may_be_a_set(tmp_path, monkeypatch):
    monkeypatch.chdir(write_text(tmp_path) / "set-b")
    assert len(list(read(Path()))) == len(LANDMARKS_HOURS)
