"""DICOM films in requests: equal predictions, privacy, refusals over HTTP."""

import base64
import io

import numpy as np
import pytest

from tests.support.inputs.chest_xrays import encoded, xray
from tests.support.inputs.dicom_files import PATIENT, SYNTAXES, deflated_bomb, dicom

AS_OF = "2031-05-04T12:00:00Z"
FILM = np.asarray(xray((160, 140)))


def request(data, **fields):
    image = {"data": base64.b64encode(data).decode(), **fields}
    return {"as_of": AS_OF, "tabular": {"age": 71, "sex": "female"}, "images": [image]}


def numbers(answer):
    return [{k: v for k, v in p.items() if k != "based_on"} for p in answer["predictions"]]


def test_a_dicom_film_is_predicted_as_the_equal_png(service):
    png = request(encoded(FILM), time="2031-05-04T11:00:00Z", media_type="image/png", view="PA")
    film = service.predict(request(dicom(FILM, SYNTAXES["JPEG-LS"])))
    expected = service.predict(png)
    assert numbers(film) == numbers(expected)
    assert film["receipt"] == expected["receipt"]


def test_the_film_of_the_open_data_is_predicted_as_the_equal_png(serve, engine, open_data):
    import pydicom

    data = (open_data("dicom") / "dicom" / "nih_cxr.dcm").read_bytes()
    service = serve(engine, max_body_bytes=4_000_000)
    time = {"time": "2031-05-04T11:00:00Z"}
    png = encoded(pydicom.dcmread(io.BytesIO(data)).pixel_array)
    answers = [
        service.predict(request(data, **time)),
        service.predict(request(png, media_type="image/png", **time)),
    ]
    assert numbers(answers[0]) == numbers(answers[1])


def test_no_identifier_of_the_file_leaves_the_service(service):
    sent = [
        request(dicom(FILM)),
        request(dicom(FILM, Modality="CT")),
        request(dicom(FILM, ViewPosition=PATIENT.upper()[:16])),
        request(dicom(FILM, BodyPartExamined=PATIENT.upper()[:16])),
        request(dicom(FILM, NumberOfFrames=2)),
        request(dicom(FILM, AcquisitionTime=None)),
        request(dicom(FILM)[:3000]),
        request(dicom(FILM), view="lateral", time="2031-05-01T11:00:00Z"),
    ]
    for body in sent:
        for parameters in ({}, {"explain": "full"}, {"strict": "true"}):
            answer = service.client.post("/predict", json=body, params=parameters)
            assert answer.status_code in (200, 422)
            assert PATIENT.upper() not in answer.text.upper()
    assert PATIENT.upper() not in service.written().upper()


def test_an_image_of_another_modality_abstains_without_other_input(service):
    body = request(dicom(FILM, Modality="CT"))
    del body["tabular"]
    answer = service.predict(body)
    assert {p["abstained"]["code"] for p in answer["predictions"]} <= {"no_input", "not_trained"}
    (entry,) = answer["receipt"]["ignored"]
    assert (entry["pointer"], entry["reason"]) == ("/images/0", "not_a_chest_xray")
    refused = service.client.post("/predict", json=body, params={"strict": "true"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/images/0"


BOMBS = {
    "65,535 x 65,535 pixels": (lambda: dicom(FILM, Rows=65_535, Columns=65_535), "pixel_limit"),
    "150 MB of deflated zeros": (
        lambda: deflated_bomb(dicom(FILM, Rows=8000, Columns=8000), 150),
        "pixel_limit",
    ),
    "deflated zeros before the pixels": (
        lambda: deflated_bomb(dicom(FILM).partition(b"\xe0\x7f\x10\0")[0], 150),
        "image",
    ),
    "RLE of a small file": (
        lambda: dicom(FILM, SYNTAXES["RLE"], frame=bytes(2000), Rows=6000, Columns=6000),
        "image",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(service, name):
    make, rule = BOMBS[name]
    answer = service.client.post("/predict", json=request(make()))
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["rule"]) == ("/images/0/data", rule)
