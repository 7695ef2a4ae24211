"""Tags of a DICOM file: unfit images, view and time, contradictions of the payload."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from pydicom.dataset import Dataset

from schemas.features import FeatureSpec
from schemas.payload import InvalidPayload, as_payload
from tests.support.inputs import dicom_files
from tests.support.inputs.chest_xrays import encoded, xray
from tests.support.inputs.dicom_files import dicom
from tests.support.inputs.feature_requests import AS_OF, at, ignored
from tests.support.inputs.image_requests import extract_images, image, image_errors

DEEP = np.asarray(xray()).astype(np.uint16) * 16
NOT_A_CHEST_XRAY, DICOM = "not_a_chest_xray", "application/dicom"


def film(hours_before=1.0, **tags):
    time = f"{at(hours_before):%Y%m%d%H%M%S}+0000"
    return image(dicom(**{"AcquisitionDateTime": time} | tags), DICOM, hours_before)


def coded(meaning, value="0"):
    item = Dataset()
    item.CodeValue, item.CodeMeaning = value, meaning
    return [item]


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "OT", ""])
def test_a_film_of_an_x_ray_modality_is_read(modality):
    features = extract_images(film(Modality=modality))
    assert features.receipt.modalities["image"].status == "used"
    assert not features.receipt.ignored
    assert not features.receipt.warnings


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Modality": "CT"}, NOT_A_CHEST_XRAY),
        ({"Modality": "MR"}, NOT_A_CHEST_XRAY),
        ({"Modality": "MG"}, NOT_A_CHEST_XRAY),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, NOT_A_CHEST_XRAY),  # CT Image Storage
        ({"BodyPartExamined": "HAND"}, NOT_A_CHEST_XRAY),
        ({"BodyPartExamined": "ABDOMEN"}, NOT_A_CHEST_XRAY),
        (
            {"BodyPartExamined": None, "AnatomicRegionSequence": coded("Foot", "56459004")},
            NOT_A_CHEST_XRAY,
        ),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, NOT_A_CHEST_XRAY),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, NOT_A_CHEST_XRAY),
        ({"PresentationIntentType": "FOR PROCESSING"}, "not_for_presentation"),
        ({"ViewPosition": "LL"}, "view_not_read"),
    ],
)
def test_another_image_is_not_read_and_the_reason_is_typed(tags, reason):
    features = extract_images(film(**tags))
    assert ignored(features) == {("/images/0", reason)}
    assert features.receipt.modalities["image"].status == "absent"
    assert len(features.receipt.warnings) == 1


@pytest.mark.parametrize(
    "tags",
    [
        {"BodyPartExamined": None},
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": "PORT CHEST"},
        {"BodyPartExamined": None, "AnatomicRegionSequence": coded("Chest", "51185008")},
        {"BodyPartExamined": "", "AnatomicRegionSequence": coded("Brustkorb", "T-D3000")},
        {"PresentationIntentType": "FOR PRESENTATION"},
    ],
)
def test_a_chest_in_other_words_is_read(tags):
    assert not extract_images(film(**tags)).receipt.ignored


def test_a_later_image_of_another_kind_does_not_replace_the_film():
    features = extract_images(film(1, Modality="CT"), film(5))
    assert ignored(features) == {("/images/0", NOT_A_CHEST_XRAY)}
    assert features.receipt.modalities["image"].status == "used"


@pytest.mark.parametrize(
    "tags",
    [
        {"ViewPosition": "RL"},
        {"ViewPosition": None, "ViewCodeSequence": coded("left lateral")},
        {"ViewPosition": "", "PatientOrientation": ["A", "F"]},
    ],
)
def test_the_view_is_read_from_the_tags(tags):
    lateral = FeatureSpec.default().model_copy(update={"views": ("lateral",)})
    assert not extract_images(film(**tags), spec=lateral).receipt.ignored
    assert ignored(extract_images(film(**tags))) == {("/images/0", "view_not_read")}


def test_the_view_of_the_payload_wins_and_the_contradiction_is_a_warning():
    features = extract_images(film(ViewPosition="LL") | {"view": "PA"})
    assert features.receipt.modalities["image"].status == "used"
    (warning,) = features.receipt.warnings
    assert warning.startswith("/images/0/view differs")
    (warning,) = extract_images(film(ViewPosition="AP") | {"view": "PA"}).receipt.warnings
    assert warning.startswith("/images/0/view differs")
    assert not extract_images(film(ViewPosition="AP") | {"view": "ap"}).receipt.warnings


def test_a_laterality_of_a_frontal_film_is_a_warning():
    (warning,) = extract_images(film(ImageLaterality="L")).receipt.warnings
    assert "one side" in warning
    assert not extract_images(film(ImageLaterality="U")).receipt.warnings


# --------------------------------------------------------------------------------------- the time


def taken_at(**tags):
    tags = {"AcquisitionDate": None, "AcquisitionTime": None, "TimezoneOffsetFromUTC": None} | tags
    payload = as_payload(
        {"as_of": datetime(2032, 1, 1, tzinfo=UTC), "images": [{"data": dicom(**tags)}]}
    )
    return payload.images[0].time


def test_the_type_the_view_and_the_time_may_be_left_to_the_file():
    payload = as_payload({"as_of": datetime(2032, 1, 1, tzinfo=UTC), "images": [{"data": dicom()}]})
    (read,) = payload.images
    assert (read.media_type, read.view) == (DICOM, "PA")
    assert read.time == datetime(2031, 5, 4, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (
            {"AcquisitionDateTime": "20310504110000.5+0200", "TimezoneOffsetFromUTC": "-0500"},
            datetime(2031, 5, 4, 11, 0, 0, 500_000, timezone(timedelta(hours=2))),
        ),
        (
            {"ContentDate": "20310504", "ContentTime": "1130", "TimezoneOffsetFromUTC": "-0330"},
            datetime(2031, 5, 4, 11, 30, tzinfo=timezone(-timedelta(hours=3, minutes=30))),
        ),
        (
            {
                "AcquisitionDate": "2031.05.04",
                "AcquisitionTime": "11:00:60",
                "TimezoneOffsetFromUTC": "+0000",
            },
            datetime(2031, 5, 4, 11, 0, 59, tzinfo=UTC),
        ),
    ],
)
def test_the_time_is_read_with_its_zone(tags, expected):
    assert taken_at(**tags) == expected


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"AcquisitionDate": "20310504", "AcquisitionTime": "110000"},
        {"AcquisitionDate": "20310504", "TimezoneOffsetFromUTC": "+0100"},
        {"AcquisitionDateTime": "2031", "TimezoneOffsetFromUTC": "+0100"},
        {"AcquisitionDateTime": "20311304110000+0000"},
    ],
)
def test_a_time_without_zone_is_not_guessed(tags):
    with pytest.raises(InvalidPayload) as caught:
        taken_at(**tags)
    (error,) = caught.value.errors
    assert (error.pointer, error.rule) == ("/images/0/time", "required")


@pytest.mark.parametrize(
    ("tags", "warns"),
    [
        ({"AcquisitionDateTime": "20261123090030+0000"}, False),
        ({"AcquisitionDateTime": "20261123100000+0100"}, False),
        ({"AcquisitionDateTime": "20261123100000+0000"}, True),
        # Without a zone, any zone may apply.
        ({"AcquisitionDateTime": "20261123230000", "TimezoneOffsetFromUTC": None}, False),
        ({"AcquisitionDateTime": "20261122090000", "TimezoneOffsetFromUTC": None}, True),
    ],
)
def test_the_time_of_the_payload_wins_and_a_contradiction_is_a_warning(tags, warns):
    assert at(1) == AS_OF - timedelta(hours=1) == datetime(2026, 11, 23, 9, tzinfo=UTC)
    warnings = extract_images(film(1, **tags)).receipt.warnings
    assert [w.startswith("/images/0/time differs") for w in warnings] == [True] * warns


# ------------------------------------------------------------------------------------- the errors


def test_errors_name_the_image_and_the_rule():
    assert image_errors(film(NumberOfFrames=3)) == {("/images/0/data", "multi_frame")}
    assert image_errors(film(BitsStored=6)) == {("/images/0/data", "bits_stored")}
    assert image_errors(film(Rows=65_000, Columns=65_000)) == {("/images/0/data", "pixel_limit")}
    cut = dicom()[:40_000]
    assert image_errors(image(cut, DICOM)) == {("/images/0/data", "image")}
    assert image_errors(image(dicom(), "image/png")) == {("/images/0/data", "media_type")}
    assert image_errors(image(encoded(xray()), DICOM)) == {("/images/0/data", "media_type")}


def test_another_syntax_is_refused_by_name():
    data = dicom().replace(dicom_files.EXPLICIT.encode() + b"\0", b"1.2.840.10008.1.2.9\0")
    assert image_errors(image(data, DICOM)) == {("/images/0/data", "transfer_syntax")}


def test_a_damaged_older_film_is_an_error():
    older = image(dicom(NumberOfFrames=2), DICOM, 5)
    assert image_errors(film(1), older) == {("/images/1/data", "multi_frame")}


def test_other_files_still_need_their_type_and_time():
    for missing, field in (({"time": AS_OF}, "media_type"), ({"media_type": "image/png"}, "time")):
        with pytest.raises(InvalidPayload) as caught:
            as_payload({"as_of": AS_OF, "images": [{"data": encoded(xray())} | missing]})
        (error,) = caught.value.errors
        assert (error.pointer, error.rule) == (f"/images/0/{field}", "required")
