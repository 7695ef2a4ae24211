"""The eICU reader, on the open demo."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from model.cohorts import DataMissing
from model.cohorts.eicu import read
from schemas.tasks import load_tasks

# The columns of each table from which a row is known.
KNOWN_FROM = {
    "patient": (),
    "diagnosis": (),
    "vitalaperiodic": ("observationoffset",),
    "treatment": ("treatmentoffset",),
    "medication": ("drugstartoffset", "drugorderoffset"),
    "infusiondrug": ("infusionoffset",),
    "note": ("noteenteredoffset",),
    "pasthistory": ("pasthistoryenteredoffset",),
    "physicalexam": ("physicalexamoffset",),
    "admissiondx": ("admitdxenteredoffset",),
}
SOME_STAYS = (141765, 151179, 186393, 1068221, 3067309)


@pytest.fixture(scope="module")
def data(open_data):
    return open_data("eicu-demo-2.0.1", "yaib-eicu-demo")


@pytest.fixture(scope="module")
def outcomes(data):
    """(outcomes, patient, site) by (stay, hours), without the payloads."""
    return {(int(r.stay), r.landmark_hours): (r.outcomes, r.patient, r.site) for r in read(data)}


@pytest.fixture(scope="module")
def records_at_24_hours(data):
    """(groups, charted, outcomes) by stay."""
    return {
        int(r.stay): (r.groups, r.charted, r.outcomes) for r in read(data) if r.landmark_hours == 24
    }


@pytest.fixture(scope="module")
def tables(data):
    """The tables and the grid of every fiftieth stay and of SOME_STAYS."""
    grid = pl.read_parquet(data / "yaib-eicu-demo/los/dyn.parquet")
    stays = [*grid["stay_id"].unique().sort().gather_every(50), *SOME_STAYS]
    folder = data / "eicu-demo-2.0.1/csv"
    tables = {
        name: pl.read_csv(folder / f"{name}.csv.gz", infer_schema=False).filter(
            pl.col("patientunitstayid").is_in([str(stay) for stay in stays])
        )
        for name in KNOWN_FROM
    }
    return tables | {"dyn": grid.filter(pl.col("stay_id").is_in(stays))}


@pytest.fixture
def records(tmp_path):
    """`records(tables)`: the records of a folder with these tables, by (stay, hours)."""

    def read_back(tables):
        (tmp_path / "yaib-eicu-demo/los").mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            if name == "dyn":
                table.write_parquet(tmp_path / "yaib-eicu-demo/los/dyn.parquet")
            else:
                table.write_csv(tmp_path / f"{name}.csv")
        return {(int(r.stay), r.landmark_hours): r for r in read(tmp_path)}

    return read_back


def test_a_stay_has_a_record_at_each_landmark_in_the_unit(outcomes):
    assert Counter(hours for _, hours in outcomes) == {6: 2267, 12: 2118, 24: 1591, 48: 915}


def test_a_stay_without_a_diagnosis_has_no_label(outcomes):
    diseases = {task.name for task in load_tasks() if task.is_disease}
    labelled = [o.keys() & diseases for (_, hours), (o, *_) in outcomes.items() if hours == 24]
    assert Counter(map(len, labelled)) == {len(diseases): 1473, 0: 118}


def test_a_subset_implies_its_parent(outcomes):
    for task in load_tasks():
        if task.subset_of:
            children = [o for o, *_ in outcomes.values() if o.get(task.name)]
            assert children
            assert all(o[task.subset_of] for o in children)


def test_icd_10_codes_are_read_beside_icd_9_codes(outcomes):
    # Hyponatremia, with the code E87.1 only.
    assert outcomes[3067309, 24][0]["fluid_electrolyte_disorder"]


def test_first_charting_is_known_for_exactly_the_charted_diseases(records_at_24_hours, data):
    names = {task.name: task for task in load_tasks() if task.is_disease}
    for _, charted, outcomes in records_at_24_hours.values():
        assert charted.keys() == {name for name in names if outcomes.get(name)}
        for name in charted:
            parent = names[name].subset_of
            assert parent is None or charted[parent] <= charted[name]
    # Hyponatremia is this stay's only electrolyte disorder.
    table = pl.read_csv(data / "eicu-demo-2.0.1/csv/diagnosis.csv.gz", infer_schema=False)
    of_stay = table.filter(
        pl.col("patientunitstayid") == "3067309", pl.col("icd9code").str.contains("E87.1")
    )
    minute = of_stay["diagnosisoffset"].cast(pl.Int64).min()
    _, charted, _ = records_at_24_hours[3067309]
    assert charted["fluid_electrolyte_disorder"] == pytest.approx(minute / 60 - 24)


def test_nine_in_ten_diseases_are_charted_in_the_first_day(records_at_24_hours):
    hours = [h for _, charted, _ in records_at_24_hours.values() for h in charted.values()]
    assert 0.8 < sum(h <= 0 for h in hours) / len(hours) < 0.95


def test_records_have_groups_of_ethnicity_and_year_of_discharge(records_at_24_hours):
    groups = [tuple(g.items()) for g, *_ in records_at_24_hours.values()]
    assert {dict(g)["years"] for g in groups} == {"2014", "2015"}
    assert Counter(dict(g)["ethnicity"] for g in groups).most_common(2)[0][0] == "White"


def test_the_disposition_is_died_for_exactly_the_patients_who_die(outcomes):
    for o, *_ in outcomes.values():
        if "discharge_disposition" in o:
            assert (o["discharge_disposition"] == "died") == o["in_hospital_mortality"]


def test_dispositions_are_the_four_of_the_task(outcomes, data):
    patient = pl.read_csv(data / "eicu-demo-2.0.1/csv/patient.csv.gz", infer_schema=False)
    location = dict(patient.select("patientunitstayid", "hospitaldischargelocation").iter_rows())
    assert {
        (location[str(stay)], o.get("discharge_disposition"))
        for (stay, _), (o, *_) in outcomes.items()
    } - {(p, None) for p in location.values()} == {
        ("Home", "home"),
        ("Skilled Nursing Facility", "post_acute"),
        ("Nursing Home", "post_acute"),
        ("Rehabilitation", "post_acute"),
        ("Other Hospital", "other_facility"),
        ("Other External", "other_facility"),
        ("Other", "other_facility"),
        ("Death", "died"),
    }


def test_length_of_stay_counts_from_as_of_to_discharge_or_death(outcomes):
    # Stay 151179 ended in death 9,272 minutes after admission to the unit.
    assert outcomes[151179, 6][0]["length_of_stay"] == (9272 - 360) / 1440
    assert outcomes[151179, 48][0]["length_of_stay"] == pytest.approx(4.43889, abs=1e-5)
    assert outcomes[151179, 48][0]["in_hospital_mortality"] is True
    assert all(o.get("length_of_stay", 1) > 0 for o, *_ in outcomes.values())


def test_all_stays_of_a_person_share_the_patient(outcomes, data):
    patient = pl.read_csv(data / "eicu-demo-2.0.1/csv/patient.csv.gz", infer_schema=False)
    of_stay = {
        int(s): (p, h)
        for s, p, h in patient["patientunitstayid", "uniquepid", "hospitalid"].iter_rows()
    }
    assert all(of_stay[stay] == (p, site) for (stay, _), (_, p, site) in outcomes.items())


def test_tabular_inputs_are_read(tables, records):
    known = records(tables)[141765, 6].payload.tabular
    assert known.model_dump() == {
        "age": 87.0,
        "sex": "female",
        "height_cm": 157.5,
        "weight_kg": 46.5,
        "admission_source": "emergency",
        "unit_type": "mixed_icu",
        "admitted_at": datetime(2015, 1, 1, 23, 44, tzinfo=UTC),
    }


def test_an_age_over_89_is_90(tables, records):
    assert records(tables)[186393, 6].payload.tabular.age == 90.0


def test_a_row_of_the_grid_is_known_from_the_end_of_its_hour(tables, records):
    payload = records(tables)[141765, 6].payload
    temperature = next(s for s in payload.series if s.variable == "temperature")
    rows = tables["dyn"].filter(pl.col("stay_id") == 141765).drop_nulls("temp").sort("time")
    rows = rows.filter(pl.col("time") < timedelta(hours=6))
    admitted = payload.as_of - timedelta(hours=6)
    assert temperature.times == [admitted + t + timedelta(hours=1) for t in rows["time"]]
    assert temperature.values == rows["temp"].to_list()


def test_notes_hold_the_findings_without_the_text_of_the_form(tables, records):
    by_stay = records(tables)
    texts = [note.text for note in by_stay[1068221, 24].payload.notes]
    assert "Past History: Cancer-Primary Site lung; COPD - moderate." in texts
    assert (
        "Admission Diagnosis: Operative Respiratory Thoracotomy for lung cancer; Elective Yes."
        in texts
    )
    everything = " ".join(note.text for r in by_stay.values() for note in r.payload.notes)
    assert not any(
        noise in everything for noise in ("Copies", "System View", "Include", "HR Current")
    )


def test_diagnoses_are_never_an_input(tables, records):
    before = records(tables)
    after = records(tables | {"diagnosis": tables["diagnosis"].clear()})
    diseases = {task.name for task in load_tasks() if task.is_disease}
    assert {key: r.payload for key, r in before.items()} == {
        key: r.payload for key, r in after.items()
    }
    assert not any(diseases & r.outcomes.keys() for r in after.values())


def test_later_chartings_do_not_change_a_record(tables, records):
    cut = {"dyn": tables["dyn"].filter(pl.col("time") < timedelta(hours=24))}
    for name, columns in KNOWN_FROM.items():
        by_then = [pl.col(column).cast(pl.Int64) <= 24 * 60 for column in columns]
        cut[name] = tables[name].filter(by_then) if by_then else tables[name]
    # A later order stays, as needed only: its name may still resolve the code of an ingredient.
    later = tables["medication"].join(cut["medication"], on="medicationid", how="anti")
    later = later.with_columns(prn=pl.lit("Yes"))
    cut["medication"] = pl.concat([cut["medication"], later])
    # An examination is known from the entry of its form.
    forms = pl.concat(
        cut[name].select("patientunitstayid", physicalexamoffset=f"{name}offset")
        for name in ("note", "pasthistory")
    )
    cut["physicalexam"] = cut["physicalexam"].join(forms, on=forms.columns, how="semi")

    before, after = records(tables), records(cut)
    first_day = [key for key in before if key[1] <= 24]
    assert len(first_day) > 100
    for key in first_day:
        assert before[key].payload == after[key].payload, key


def test_a_cancellation_at_an_unknown_time_does_not_change_a_record(tables, records):
    def payloads(cancelled):
        orders = tables["medication"].with_columns(drugordercancelled=pl.lit(cancelled))
        read_back = records(tables | {"medication": orders})
        return {key: record.payload for key, record in read_back.items()}

    kept, cancelled = payloads("No"), payloads("Yes")
    assert any(payload.treatments for payload in kept.values())
    assert kept == cancelled


def test_an_examination_without_a_time_of_entry_is_no_input(tables, records):
    exam = tables["physicalexam"]
    moved = exam.with_columns(pl.col("physicalexamoffset").cast(pl.Int64).add(1).cast(pl.String))
    forms = [tables[name][f"{name}offset"].unique() for name in ("note", "pasthistory")]
    unmatched = moved.filter(~pl.col("physicalexamoffset").is_in(pl.concat(forms).implode()))
    assert len(unmatched) > 100
    kinds = {
        note.kind
        for record in records(tables | {"physicalexam": unmatched}).values()
        for note in record.payload.notes
    }
    assert "physical_exam" not in kinds
    assert "past_history" in kinds


@pytest.mark.parametrize(
    ("charted", "expected"),
    [
        ([(0, 5), (60, 8), (300, 12)], (None, 12.0, 300)),  # a gap ended the first infusion
        ([(0, 5), (300, 5), (350, 8)], (None, 8.0, 300)),
        ([(300, 5), (330, 0)], (330, None, 300)),
        ([(60, 5), (120, 5)], (120, None, 60)),
        ([(300, 5), (400, 0)], (None, 5.0, 300)),  # still running at as_of
    ],
)
def test_an_infusion_runs_from_its_first_rate_to_a_zero_or_a_gap(
    tables, records, charted, expected
):
    rates = pl.DataFrame(
        [("141765", str(m), "Norepinephrine (mcg/min)", str(rate)) for m, rate in charted],
        ["patientunitstayid", "infusionoffset", "drugname", "drugrate"],
        orient="row",
    )
    nothing = {name: tables[name].clear() for name in ("treatment", "medication")}
    payload = records(tables | nothing | {"infusiondrug": rates})[141765, 6].payload
    admitted = payload.as_of - timedelta(hours=6)
    end, rate, start = expected
    last = payload.treatments[-1]
    assert (last.name, last.start) == ("norepinephrine", admitted + timedelta(minutes=start))
    assert last.end == (None if end is None else admitted + timedelta(minutes=end))
    assert (last.rate, last.unit) == (rate, rate and "ug/min")


@pytest.mark.parametrize("name", ["patient", "infusiondrug", "dyn"])
def test_a_missing_file_is_named(tables, records, name):
    with pytest.raises(DataMissing, match=f"{name}.*"):
        records({other: table for other, table in tables.items() if other != name})
