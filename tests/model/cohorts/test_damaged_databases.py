"""A damaged file of a database is told in one line that names it and quotes no value."""

import gzip
import io
import shutil

import PIL.Image
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from model.cli.main import app
from model.cohorts import DataError, DataMissing, eicu, mimic_iv, nih_cxr
from model.cohorts.store import CohortError, write
from schemas.features import FeatureSpec
from tests.model.cohorts.test_mimic_iv import TABLES, hospital
from tests.support.damaged_files import copied, damage_file

SECRET = "Jane Doe"


@pytest.fixture(scope="module")
def real_eicu(open_data, tmp_path_factory):
    """A few stays of the demo."""
    data = open_data("eicu-demo-2.0.1", "yaib-eicu-demo")
    folder = tmp_path_factory.mktemp("eicu") / "data"
    (folder / "yaib-eicu-demo/los").mkdir(parents=True)
    grid = pl.read_parquet(data / "yaib-eicu-demo/los/dyn.parquet")
    stays = [str(stay) for stay in grid["stay_id"].unique().sort().gather_every(600)]
    grid.filter(pl.col("stay_id").cast(pl.String).is_in(stays)).write_parquet(
        folder / "yaib-eicu-demo/los/dyn.parquet"
    )
    for path in (data / "eicu-demo-2.0.1/csv").glob("*.csv.gz"):
        table = pl.read_csv(path, infer_schema=False)
        if "patientunitstayid" in table.columns:
            kept = table.filter(pl.col("patientunitstayid").is_in(stays))
            (folder / path.name).write_bytes(gzip.compress(kept.write_csv().encode()))
    return folder


@pytest.fixture(scope="module")
def made_mimic(tmp_path_factory):
    return hospital(tmp_path_factory.mktemp("mimic") / "data")


@pytest.fixture(scope="module")
def made_nih(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nih") / "data"
    (folder / "nih-cxr").mkdir(parents=True)
    (folder / "nih-cxr/labels.csv").write_text(
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
        "1.png,Pneumonia,7,60,F,PA\n"
    )
    image = io.BytesIO()
    PIL.Image.new("L", (64, 64), 90).save(image, "JPEG")
    (folder / "nih-cxr/1.jpg").write_bytes(image.getvalue())
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "copy"


def fault_of(reader, folder, out):
    """What making a cohort of a folder says, in one line; "" if it takes no offence."""
    told = ""
    try:
        for _ in write(
            reader.read(folder), out, name="x", source="", made_by=(), spec=FeatureSpec.default()
        ):
            pass
    except (CohortError, DataError, DataMissing) as error:
        told = str(error)
        assert told
    assert "\n" not in told
    return told


def tables_of(folder):
    found = [p for p in folder.rglob("*.*") if p.suffix in (".gz", ".csv", ".parquet")]
    return sorted(path.relative_to(folder) for path in found)


@pytest.mark.parametrize("kind", ["real_eicu", "made_mimic", "made_nih"])
def test_a_damaged_table_is_named(kind, request, place, tmp_path):
    whole = request.getfixturevalue(kind)
    reader = {"real_eicu": eicu, "made_mimic": mimic_iv, "made_nih": nih_cxr}[kind]
    assert fault_of(reader, whole, tmp_path / "out") == ""

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.sampled_from(tables_of(whole)), st.data())
    def try_one(name, data):
        folder = copied(whole, place)
        damage_file(data.draw, folder / name)
        said = fault_of(reader, folder, tmp_path / "out")
        assert said == "" or str(folder) in said or "the cohort x has no records" in said

    try_one()


@pytest.mark.parametrize("kind", ["real_eicu", "made_mimic"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(",", ";"), " has no column "),
        (lambda text: text.replace("\n", f"\n{SECRET},{SECRET}\n", 1), ""),
        (lambda text: text.replace("stay", "x"), " has no column "),
        (lambda text: text + "\xff" * 3, "is damaged"),
        (lambda text: "", " is empty"),
    ],
)
def test_a_table_of_another_make_is_named_and_no_value_of_it(kind, change, said, request, place):
    whole = request.getfixturevalue(kind)
    reader, name = {
        "real_eicu": (eicu, "patient.csv.gz"),
        "made_mimic": (mimic_iv, "mimiciv/3.1/icu/icustays.csv.gz"),
    }[kind]
    folder = copied(whole, place)
    text = gzip.decompress((folder / name).read_bytes()).decode()
    (folder / name).write_bytes(gzip.compress(change(text).encode("latin-1")))
    told = fault_of(reader, folder, place.parent / "out")
    assert str(folder / name) in told
    assert said in told
    assert SECRET not in told


@pytest.mark.parametrize("table", TABLES)
def test_a_truncated_archive_is_never_taken_for_a_short_table(table, made_mimic, place):
    folder = copied(made_mimic, place)
    path = folder / f"mimiciv/3.1/{table}.csv.gz"
    path.write_bytes(path.read_bytes()[:-6])
    told = fault_of(mimic_iv, folder, place.parent / "out")
    assert told == f"{path} cannot be read: unexpected end of file"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("unitadmittime24", "8 o'clock"),
        ("unitadmittime24", ""),
        ("hospitaldischargeyear", "MMXIV"),
        ("hospitaldischargeyear", "0"),
        ("unitdischargeoffset", ""),
        ("hospitaldischargeoffset", "soon"),
        ("age", "seventy"),
        ("uniquepid", ""),
    ],
)
def test_a_value_that_no_stay_has_is_told_by_its_column(column, value, real_eicu, place):
    folder = copied(real_eicu, place)
    path = folder / "patient.csv.gz"
    table = pl.read_csv(path, infer_schema=False).with_columns(pl.lit(value).alias(column))
    path.write_bytes(gzip.compress(table.write_csv().encode()))
    told = fault_of(eicu, folder, place.parent / "out")
    assert told.startswith(f"{path}: the column {column} of ")
    assert not value or value not in told.removeprefix(str(path))


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut"])
def test_an_image_that_cannot_be_read_is_named(content, made_nih, place):
    folder = copied(made_nih, place)
    (folder / "nih-cxr/1.jpg").write_bytes(content)
    told = fault_of(nih_cxr, folder, place.parent / "out")
    assert told.startswith(f"{folder / 'nih-cxr/1.jpg'}: /images/0/data: ")


def test_the_command_ends_with_the_line(made_mimic, place, tmp_path):
    folder = copied(made_mimic, place)
    shutil.rmtree(folder / "mimiciv/3.1/hosp")
    command = ["cohort", "mimic_iv", "--data", str(folder), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("m3h-model: MIMIC-IV: no hosp/admissions.csv.gz")
