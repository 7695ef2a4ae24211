"""The error for a damaged file of a database is one line that names it and quotes no value."""

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
from tests.support.inputs.damaged_files import copied, damage_file
from tests.support.inputs.mimic_iv import TABLES, hospital

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
            rows = table.filter(pl.col("patientunitstayid").is_in(stays))
            (folder / path.name).write_bytes(gzip.compress(rows.write_csv().encode()))
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
def copy_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "copy"


def error_of(reader, folder, out):
    """The error of making a cohort from a folder, one line; "" without an error."""
    error_text = ""
    try:
        for _ in write(
            reader.read(folder), out, name="x", source="", made_by=(), spec=FeatureSpec.default()
        ):
            pass
    except (CohortError, DataError, DataMissing) as error:
        error_text = str(error)
        assert error_text
    assert "\n" not in error_text
    return error_text


def tables_of(folder):
    paths = [p for p in folder.rglob("*.*") if p.suffix in (".gz", ".csv", ".parquet")]
    return sorted(path.relative_to(folder) for path in paths)


@pytest.mark.parametrize("kind", ["real_eicu", "made_mimic", "made_nih"])
def test_a_damaged_table_is_named(kind, request, copy_folder, tmp_path):
    whole = request.getfixturevalue(kind)
    reader = {"real_eicu": eicu, "made_mimic": mimic_iv, "made_nih": nih_cxr}[kind]
    assert error_of(reader, whole, tmp_path / "out") == ""

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.sampled_from(tables_of(whole)), st.data())
    def damage_and_read(name, data):
        folder = copied(whole, copy_folder)
        damage_file(data.draw, folder / name)
        error_text = error_of(reader, folder, tmp_path / "out")
        assert (
            error_text == ""
            or str(folder) in error_text
            or "the cohort x has no records" in error_text
        )

    damage_and_read()


@pytest.mark.parametrize("kind", ["real_eicu", "made_mimic"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(",", ";"), " has no column "),
        (lambda text: text.replace("\n", f"\n{SECRET},{SECRET}\n", 1), ""),
        (lambda text: text.replace("stay", "x"), " has no column "),
        (lambda text: text + "\xff" * 3, "is damaged"),
        (lambda text: "", " is empty"),
    ],
)
def test_the_error_names_the_table_and_quotes_no_value(kind, change, reason, request, copy_folder):
    whole = request.getfixturevalue(kind)
    reader, name = {
        "real_eicu": (eicu, "patient.csv.gz"),
        "made_mimic": (mimic_iv, "mimiciv/3.1/icu/icustays.csv.gz"),
    }[kind]
    folder = copied(whole, copy_folder)
    text = gzip.decompress((folder / name).read_bytes()).decode()
    (folder / name).write_bytes(gzip.compress(change(text).encode("latin-1")))
    error_text = error_of(reader, folder, copy_folder.parent / "out")
    assert str(folder / name) in error_text
    assert reason in error_text
    assert SECRET not in error_text


@pytest.mark.parametrize("table", TABLES)
def test_a_truncated_archive_is_not_read_as_a_short_table(table, made_mimic, copy_folder):
    folder = copied(made_mimic, copy_folder)
    path = folder / f"mimiciv/3.1/{table}.csv.gz"
    path.write_bytes(path.read_bytes()[:-6])
    error_text = error_of(mimic_iv, folder, copy_folder.parent / "out")
    assert error_text == f"{path} cannot be read: unexpected end of file"


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
def test_the_error_for_an_invalid_value_names_its_column(column, value, real_eicu, copy_folder):
    folder = copied(real_eicu, copy_folder)
    path = folder / "patient.csv.gz"
    table = pl.read_csv(path, infer_schema=False).with_columns(pl.lit(value).alias(column))
    path.write_bytes(gzip.compress(table.write_csv().encode()))
    error_text = error_of(eicu, folder, copy_folder.parent / "out")
    assert error_text.startswith(f"{path}: the column {column} of ")
    assert not value or value not in error_text.removeprefix(str(path))


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut"])
def test_an_unreadable_image_is_named(content, made_nih, copy_folder):
    folder = copied(made_nih, copy_folder)
    (folder / "nih-cxr/1.jpg").write_bytes(content)
    error_text = error_of(nih_cxr, folder, copy_folder.parent / "out")
    assert error_text.startswith(f"{folder / 'nih-cxr/1.jpg'}: /images/0/data: ")


def test_the_command_prints_the_error_as_its_last_line(made_mimic, copy_folder, tmp_path):
    folder = copied(made_mimic, copy_folder)
    shutil.rmtree(folder / "mimiciv/3.1/hosp")
    command = ["cohort", "mimic_iv", "--data", str(folder), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("m3h-model: MIMIC-IV: no hosp/admissions.csv.gz")
