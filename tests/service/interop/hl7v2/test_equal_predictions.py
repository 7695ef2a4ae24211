"""A message and the equal payload give equal predictions."""

import base64
from typing import Any

import pytest

from tests.service.conftest import png
from tests.service.interop.hl7v2.conftest import reasons, used
from tests.support.inputs.dicom_files import dicom
from tests.support.inputs.hl7_messages import OBR, comments_of, message, named, obx, visit


def numbers(answer: Any) -> list[Any]:
    return [{k: v for k, v in p.items() if k != "based_on"} for p in answer["predictions"]]


PAYLOAD = {
    "as_of": "2031-05-04T12:00:00Z",
    "tabular": {
        "age": 67,
        "sex": "female",
        "height_cm": 165,
        "weight_kg": 71.5,
        "admission_source": "emergency",
        "unit_type": "medical_icu",
        "admitted_at": "2031-05-03T12:00:00Z",
    },
    "series": [
        {
            "variable": "heart_rate",
            "unit": "/min",
            "times": ["2031-05-04T09:00:00Z", "2031-05-04T11:00:00Z"],
            "values": [112, 121.5],
        },
        {
            "variable": "loinc:2160-0",
            "unit": "umol/L",
            "times": ["2031-05-04T10:00:00Z"],
            "values": [210],
        },
        {
            "variable": "lactate",
            "unit": "mmol/L",
            "times": ["2031-05-04T11:00:00Z"],
            "values": ["<0.5"],
        },
        {
            "variable": "body_weight",
            "unit": "kg",
            "times": ["2031-05-03T12:00:00Z"],
            "values": [71.5],
        },
    ],
    "notes": [
        {
            "kind": "note",
            "time": "2031-05-04T08:00:00Z",
            "text": "Patient febrile and hypotensive.\nOn antibiotics.",
        }
    ],
}
SEGMENTS = (
    visit(),
    OBR,
    obx("112", time="20310504090000"),
    obx("121.5", time="20310504130000+0200"),
    obx("210", "CREA^Kreatinin^L^2160-0^Creatinine^LN", "umol/L", time="20310504100000"),
    obx("<^0.5", "2524-7^Lactate^LN", "mmol/L", "SN", time=""),
    obx("71.5", "29463-7^Body weight^LN", "kg", time="20310503120000"),
    obx("1.65", "8302-2^Body height^LN", "m"),
    obx("Patient febrile and hypotensive.", "11506-3^Note^LN", "", "TX", time="20310504080000"),
    obx("On antibiotics.", "11506-3^Note^LN", "", "TX", time="20310504080000"),
)


@pytest.fixture(scope="module")
def expected(service: Any) -> Any:
    return service.predict(PAYLOAD, explain="none")


@pytest.mark.parametrize("kind", ["ORU^R01^ORU_R01", "ORU^R01", "ADT^A01^ADT_A01", "ADT^A08"])
def test_a_message_and_the_equal_payload_give_equal_predictions(hl7, expected, kind):
    answer = hl7.predict(message(*SEGMENTS, kind=kind))
    assert numbers(answer) == numbers(expected)
    assert used(answer) == {"heart_rate": 2, "creatinine": 1, "lactate": 1, "body_weight": 1}
    assert reasons(answer) == set()


def test_the_acknowledgement_has_the_numbers_of_each_task(hl7, expected):
    answer = hl7.acknowledged(message(*SEGMENTS))
    header, (msa,) = named(answer, "MSH")[0], named(answer, "MSA")
    assert (header[2:6], header[8], header[11]) == (
        ["M3H", "HOSP", "LAB", "HOSP"],
        "ACK^R01^ACK",
        "2.5.1",
    )
    assert msa == ["MSA", "AA", "CONTROL1"]
    sent = {(f[3].split("^")[0], f[4]): (f[2], f[5], f[11]) for f in named(answer, "OBX")}
    for p in expected["predictions"]:
        if "abstained" in p:
            assert sent[p["task"], ""] == ("", "", "X")
        elif "probability" in p:
            kind, value, status = sent[p["task"], "probability"]
            assert (kind, status) == ("NM", "P")
            assert float(value) == pytest.approx(p["probability"], abs=1e-6)
        for outcome, probability in p.get("probabilities", {}).items():
            value = sent[p["task"], f"probability {outcome}"][1]
            assert float(value) == pytest.approx(probability, abs=1e-6)
        if "interval" in p:
            assert sent[p["task"], "interval"][0] == "SN"
    assert {task for task, _ in sent} == {p["task"] for p in expected["predictions"]}
    assert any("hospital" in comment for comment in comments_of(answer))


def test_the_order_of_the_results_has_no_influence(hl7, expected):
    _, order, *results = SEGMENTS
    shuffled = (order, *results[-3::-1], *results[-2:], visit())
    assert numbers(hl7.predict(message(*shuffled))) == numbers(expected)


def test_other_line_ends_and_an_mllp_frame_are_read(hl7, expected):
    text = message(*SEGMENTS)
    for body in (text.replace("\r", "\n"), text.replace("\r", "\r\n"), f"\x0b{text}\x1c\r"):
        assert numbers(hl7.predict(body)) == numbers(expected)


def test_other_delimiters_are_read(hl7, expected):
    swapped = message(*SEGMENTS).translate(str.maketrans("|^~&", "!*@%"))
    assert numbers(hl7.predict(swapped)) == numbers(expected)


def test_the_parameter_as_of_precedes_the_header(hl7, expected):
    later = message(*SEGMENTS, time="20310601000000+0000")
    answer = hl7.predict(later, as_of="2031-05-04T12:00:00Z")
    assert numbers(answer) == numbers(expected)
    assert numbers(hl7.predict(later)) != numbers(expected)


@pytest.mark.parametrize("type_", ["x-application/hl7-v2+er7", "application/hl7-v2; charset=utf-8"])
def test_both_media_types_are_accepted(hl7, type_):
    assert hl7.post(message(*SEGMENTS), type_=type_).status_code == 200


def test_a_document_message_is_read_as_a_note(hl7, service):
    document = "TXA|1|HP|TX|||20310504080000"
    text = obx("Patient febrile.", "11492-6^H&P^LN", "", "FT", time="")
    answer = hl7.predict(message(visit(), document, text, kind="MDM^T02^MDM_T02"))
    payload = {
        "as_of": PAYLOAD["as_of"],
        "tabular": {
            "age": 67,
            "sex": "female",
            "admission_source": "emergency",
            "unit_type": "medical_icu",
            "admitted_at": "2031-05-03T12:00:00Z",
        },
        "notes": [
            {"kind": "admission", "time": "2031-05-04T08:00:00Z", "text": "Patient febrile."}
        ],
    }
    assert numbers(answer) == numbers(service.predict(payload, explain="none"))


@pytest.mark.parametrize("kind", ["png", "dicom"])
def test_an_encapsulated_film_is_predicted_as_in_a_payload(hl7, service, kind):
    data = png(96, 80) if kind == "png" else base64.b64encode(dicom()).decode()
    media = "IMAGE^PNG" if kind == "png" else "Application^DICOM"
    film = obx(f"PACS^{media}^Base64^{data}", "36554-4^XR Chest Single view^LN", "", "ED")
    media_type = "image/png" if kind == "png" else "application/dicom"
    image = {"time": "2031-05-04T11:00:00Z", "media_type": media_type, "data": data}
    payload = {"as_of": PAYLOAD["as_of"], "tabular": {"age": 67, "sex": "f"}, "images": [image]}
    expected = service.predict(payload, explain="none")
    answer = hl7.predict(message(OBR, film))
    assert numbers(answer) == numbers(expected)
    assert answer["receipt"]["modalities"]["image"]["status"] == "used"
