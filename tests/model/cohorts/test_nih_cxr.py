"""The reader of NIH ChestX-ray14."""

import io
from collections import Counter
from itertools import islice

import PIL.Image
import pytest

from model.cohorts import DataMissing
from model.cohorts.nih_cxr import read


@pytest.fixture(scope="module")
def data(open_data):
    return open_data("nih-cxr")


def test_each_image_is_a_record_and_half_show_pneumonia(data):
    count, labels, patients = 0, Counter(), set()
    for record in read(data):
        count += 1
        patients.add(record.patient)
        labels.update(task for task, label in record.outcomes.items() if label)
    assert (count, len(patients), labels["pneumonia"]) == (976, 672, 486)


def test_only_findings_with_a_task_are_labels(data):
    for record in islice(read(data), 20):
        assert record.outcomes.keys() == {"pleural_effusion", "pneumonia", "copd"}
        assert record.landmark_hours is None


def test_a_record_holds_the_unchanged_image_age_and_sex(data):
    record = next(read(data))
    (image,) = record.payload.images
    assert image.data == (data / f"nih-cxr/images_512/{record.stay}.jpg").read_bytes()
    assert PIL.Image.open(io.BytesIO(image.data)).format == "JPEG"
    assert image.media_type == "image/jpeg"
    assert image.view in {"AP", "PA"}
    assert record.payload.tabular.age is not None
    assert record.payload.tabular.sex in {"female", "male"}


def test_the_official_release_is_read_too(tmp_path):
    (tmp_path / "images_001/images").mkdir(parents=True)
    PIL.Image.new("L", (8, 8)).save(tmp_path / "images_001/images/00000001_000.png")
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
        "00000001_000.png,Emphysema|Effusion,1,058Y,F,PA\n"
        "00000002_000.png,No Finding,2,061Y,M,AP\n"
    )
    (record,) = read(tmp_path)
    assert record.outcomes == {"copd": True, "pleural_effusion": True, "pneumonia": False}
    assert record.payload.tabular.age == 58.0
    assert record.payload.images[0].media_type == "image/png"


def test_a_missing_table_or_image_folder_is_named(tmp_path):
    with pytest.raises(DataMissing, match=r"nih-cxr/labels\.csv is missing"):
        next(read(tmp_path))
    (tmp_path / "labels.csv").write_text("Image Index\n1.png\n")
    with pytest.raises(DataMissing, match=r"the images of .*labels\.csv are missing"):
        next(read(tmp_path))
