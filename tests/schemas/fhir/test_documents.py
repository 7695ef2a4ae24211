"""Notes and chest X-rays of a Bundle."""

from typing import Any

from tests.support.inputs import fhir_bundles as make

TEXT = "Patient febrile and hypotensive, started on norepinephrine for septic shock."
HTML = f"<html><body><p>{TEXT}</p></body></html>"


def notes(reader: Any, *resources: Any) -> list[dict[str, Any]]:
    return reader(make.bundle(make.heart_rate(), *resources)).notes


def test_the_contents_of_a_document_are_one_note(reader):
    contents = [
        {"attachment": {"contentType": "text/html", "data": make.encoded(HTML)}},
        {"attachment": {"contentType": "text/plain", "data": make.encoded(TEXT)}},
    ]
    for order in (contents, contents[::-1]):
        (note,) = notes(reader, make.note("", 4, content=order))
        assert note["text"] == TEXT


def test_a_report_gives_its_form_and_otherwise_its_conclusion(reader):
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "Chest X-ray"},
        "category": [{"coding": [{"code": "RAD"}]}],
        "subject": {"reference": make.PATIENT},
        "effectiveDateTime": make.ago(6),
        "issued": make.ago(5),
        "conclusion": "No acute disease.",
    }
    form = {"contentType": "text/plain", "data": make.encoded(TEXT)}
    (short,) = notes(reader, report)
    (full,) = notes(reader, report | {"presentedForm": [form]})
    assert (short["text"], full["text"]) == ("No acute disease.", TEXT)
    assert {short["kind"], full["kind"]} == {"radiology"}
    assert full["time"].isoformat() == make.ago(5)


def test_a_note_may_be_in_a_binary(reader):
    binary = {
        "resourceType": "Binary",
        "id": "b",
        "contentType": "text/plain",
        "data": make.encoded(TEXT),
    }
    sent = make.note("", 4, content=[{"attachment": {"url": "Binary/b"}}])
    assert [note["text"] for note in notes(reader, sent, binary)] == [TEXT]


def test_white_space_in_base64_is_ignored(reader):
    data = make.encoded(TEXT)
    broken = "\n".join(data[i : i + 60] for i in range(0, len(data), 60))
    content = [{"attachment": {"contentType": "text/plain", "data": broken}}]
    (note,) = notes(reader, make.note("", 4, content=content))
    assert note["text"] == TEXT


def test_latin_1_is_read_if_it_is_declared(reader):
    content = [
        {
            "attachment": {
                "contentType": "text/plain; charset=ISO-8859-1",
                "data": make.encoded("Fièvre".encode("latin-1")),
            }
        }
    ]
    (note,) = notes(reader, make.note("", 4, content=content))
    assert note["text"] == "Fièvre"
