"""Notes and chest X-rays of a Bundle."""

import pytest

from tests.service.conftest import png
from tests.support.inputs import fhir_bundles as make

FIRST = "Bundle.entry[1].resource"
TEXT = "Patient febrile and hypotensive, started on norepinephrine for septic shock."
RTF = r"{\rtf1\ansi " + TEXT + "}"
HTML = f"<html><body><p>{TEXT}</p></body></html>"


@pytest.mark.parametrize(
    ("media_type", "text"),
    [("text/plain", TEXT), ("text/html", HTML), ("application/rtf", RTF), ("text/rtf", RTF)],
)
def test_text_html_and_rtf_give_the_same_prediction(fhir, media_type, text):
    sent = make.bundle(make.stay(), make.note(text, 4, media_type))
    expected = make.bundle(make.stay(), make.note(TEXT, 4))
    assert fhir.predict(sent).numbers() == fhir.predict(expected).numbers()


def test_a_binary_that_no_document_names_is_listed(fhir):
    binary = {
        "resourceType": "Binary",
        "id": "b",
        "contentType": "text/plain",
        "data": make.encoded(TEXT),
    }
    unnamed = fhir.predict(make.bundle(binary, make.heart_rate()))
    assert (FIRST, "not_referenced") in unnamed.reasons()


def test_a_pdf_beside_the_text_is_no_loss(fhir):
    contents = [
        {"attachment": {"contentType": "application/pdf", "data": "AAAA"}},
        {"attachment": {"contentType": "text/plain", "data": make.encoded(TEXT)}},
    ]
    body = make.bundle(make.note("", 4, content=contents), make.heart_rate())
    assert "notes: used" in " ".join(fhir.predict(body, strict="true").details("modality"))


def test_a_note_of_markup_only_is_no_input(fhir):
    body = make.bundle(make.note("<p> </p>", 2, "text/html"), make.heart_rate())
    answer = fhir.predict(body)
    assert (f"{FIRST}.content[0].attachment", "no_text") in answer.reasons()
    (provenance,) = answer.of_type("Provenance")
    assert body["entry"][1]["fullUrl"] not in str(provenance)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "registered"}, "status"),
        ({"status": "entered-in-error"}, "status"),
        ({"modifierExtension": [{"url": "urn:not"}]}, "modifier_extension"),
        ({"conclusion": None}, "no_text"),
        ({"issued": make.ago(-1)}, "after_as_of"),
        ({"issued": None, "effectiveDateTime": None}, "no_time"),
    ],
)
def test_a_report_that_is_not_read_is_listed(fhir, fields, reason):
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "Chest X-ray"},
        "subject": {"reference": make.PATIENT},
        "effectiveDateTime": make.ago(6),
        "issued": make.ago(5),
        "conclusion": TEXT,
    }
    sent = {k: v for k, v in (report | fields).items() if v is not None}
    answer = fhir.predict(make.bundle(sent, make.heart_rate()))
    assert (FIRST, reason) in answer.reasons()
    assert "notes: absent" in answer.details("modality")


@pytest.mark.parametrize(
    ("attachment", "place", "rule"),
    [
        (
            {"contentType": "text/plain", "data": make.encoded("Fièvre".encode("latin-1"))},
            "content[0].attachment",
            "charset",
        ),
        ({"contentType": "text/plain", "data": "?"}, "content[0].attachment.data", "base64"),
        ({"contentType": "text/plain", "data": 5}, "content[0].attachment.data", "base64"),
    ],
)
def test_a_damaged_attachment_is_an_error(fhir, attachment, place, rule):
    body = make.bundle(make.note("", 4, content=[{"attachment": attachment}]))
    fhir.refuse(body, 422, (f"{FIRST}.{place}", rule))


@pytest.mark.parametrize(
    ("fields", "place", "reason"),
    [
        ({"status": "entered-in-error"}, "", "status"),
        ({"status": "superseded"}, "", "status"),
        ({"docStatus": "entered-in-error"}, "", "status"),
        ({"date": make.ago(-1)}, "", "after_as_of"),
        ({"date": None}, "", "no_time"),
        ({"content": []}, "", "no_text"),
        (
            {"content": [{"attachment": {"contentType": "application/pdf", "data": "AAAA"}}]},
            ".content[0].attachment",
            "media_type_not_read",
        ),
        (
            {"content": [{"attachment": {"contentType": "text/plain", "url": "http://ehr/1"}}]},
            ".content[0].attachment",
            "external_url",
        ),
        (
            {"content": [{"attachment": {"contentType": "text/plain", "data": "ICAg"}}]},
            ".content[0].attachment",
            "no_text",
        ),
    ],
)
def test_a_document_that_is_not_read_is_listed(fhir, fields, place, reason):
    sent = {k: v for k, v in make.note(TEXT, 4, **fields).items() if v is not None}
    answer = fhir.predict(make.bundle(sent, make.heart_rate()))
    assert (f"{FIRST}{place}", reason) in answer.reasons()
    assert "notes: absent" in answer.details("modality")


def test_a_chest_xray_is_used_and_referenced(fhir):
    body = make.bundle(make.chest_xray(png(96, 80), 6), make.heart_rate())
    answer = fhir.predict(body)
    (provenance,) = answer.of_type("Provenance")
    sources = [entity["what"]["reference"] for entity in provenance["entity"][:-1]]
    assert body["entry"][1]["fullUrl"] in sources


@pytest.mark.parametrize(
    ("fields", "place", "reason"),
    [
        ({"status": "entered-in-error"}, "", "status"),
        ({"createdDateTime": make.ago(-1)}, "", "after_as_of"),
        ({"modality": None, "bodySite": None}, "", "not_a_chest_xray"),
        ({"modality": {"coding": [{"code": "CT"}]}}, "", "not_a_chest_xray"),
        ({"bodySite": {"text": "Left knee"}}, "", "not_a_chest_xray"),
        (
            {"content": {"contentType": "application/dicom", "data": "AAAA"}},
            ".content",
            "media_type_not_read",
        ),
        ({"content": {"contentType": "video/mp4", "url": "x"}}, ".content", "media_type_not_read"),
    ],
)
def test_an_image_that_is_not_read_is_listed(fhir, fields, place, reason):
    sent = make.chest_xray(png(24, 20), 6) | fields
    sent = {k: v for k, v in sent.items() if v is not None}
    answer = fhir.predict(make.bundle(sent, make.heart_rate()))
    assert (f"{FIRST}{place}", reason) in answer.reasons()
    assert "image: absent" in answer.details("modality")


def test_a_damaged_image_is_an_error_at_its_content(fhir):
    body = make.bundle(make.chest_xray(make.encoded("no image"), 6))
    fhir.refuse(body, 422, (f"{FIRST}.content", "image"))


def test_a_lateral_view_is_listed(fhir):
    lateral = make.chest_xray(png(96, 80), 6, view={"coding": [{"display": "lateral"}]})
    answer = fhir.predict(make.bundle(lateral, make.heart_rate()))
    assert (f"{FIRST}.content", "view_not_read") in answer.reasons()
