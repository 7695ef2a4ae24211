"""Bad messages: the answer names segment, sequence, field and rule, and repeats no value."""

import json

import hl7 as reference
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.interop.hl7v2.er7 import Delimiters, escaped, make_unescape, parse_message
from tests.support.inputs.hl7_messages import (
    NAME,
    OBR,
    PID,
    errors_of,
    message,
    named,
    obx,
    segments_of,
    visit,
)

GOOD = message(visit(), OBR, obx("112"))
MSH_ONLY = "MSH|^~\\&|LAB"


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        ("", "AE", ("MSH^1", "msh_required")),
        (NAME, "AE", ("MSH^1", "msh_required")),
        (json.dumps({"name": NAME}), "AE", ("MSH^1", "msh_required")),
        (PID, "AE", ("MSH^1", "msh_required")),
        ("MSH", "AR", ("MSH^1^2", "delimiters")),
        ("MSH|^^^^|LAB", "AR", ("MSH^1^2", "delimiters")),
        ("MSH|ABCD|LAB", "AR", ("MSH^1^2", "delimiters")),
        ("MSH|^~|LAB", "AR", ("MSH^1^2", "delimiters")),
        (MSH_ONLY, "AR", ("MSH^1^9", "message_type")),
        (message(kind="ORU^R99"), "AR", ("MSH^1^9", "trigger_event")),
        (message(kind=f"{NAME}^R01"), "AR", ("MSH^1^9", "message_type")),
        (GOOD.replace("|CONTROL1|", "||"), "AE", ("MSH^1^10", "required")),
        (GOOD.replace("|P|2.5.1", "|Q|2.5.1"), "AR", ("MSH^1^11", "processing_id")),
        (GOOD.replace("|P|2.5.1", "|P|3.0"), "AR", ("MSH^1^12", "version")),
        (message(obx("1"), patient=None), "AE", ("PID^1", "pid_required")),
        (message(PID), "AE", ("PID^2", "one_patient")),
        (message("PID|2||77||Other^Name"), "AE", ("PID^2", "one_patient")),
        (message(time=""), "AE", ("MSH^1^7", "required")),
        (message(time="20310504"), "AE", ("MSH^1^7", "required")),
        (message(time="yesterday"), "AE", ("MSH^1^7", "date_time")),
        (message(f"{NAME}|1"), "AE", ("MSH^1", "segment_name")),
        (message("ob|1"), "AE", ("MSH^1", "segment_name")),
        (message("ZZZ" + "|" * 300), "AE", ("ZZZ^1", "segment_length")),
        (message("ZZZ|" + "x" * 70_000), "AE", ("ZZZ^1", "segment_length")),
        (message(patient="PID|1||||||20320101"), "AE", ("PID^1^7", "ordered")),
        (message(patient="PID|1||||||1963-10"), "AE", ("PID^1^7", "date_time")),
        (message(patient="PID|1"), "AE", ("MSH^1", "not_empty")),
        (message(charset="UNICODE UTF-16"), "AR", ("MSH^1^18", "charset")),
        (message(charset="ASCII~ISO IR87"), "AR", ("MSH^1^18", "charset")),
        (message(obx("1~2")), "AE", ("OBX^1^5", "one_value")),
        (message(obx("!!^1", kind="SN")), "AE", ("OBX^1^5", "allowed_values")),
        (
            message(obx("^IMAGE^PNG^Base64^AAAA", "1^XR Chest^L", "", "ED")),
            "AE",
            ("OBX^1", "image"),
        ),
    ],
)
def test_a_bad_message_is_refused_at_its_location(hl7, body, code, error):
    hl7.refuse(body, code, error)


def test_all_errors_of_a_message_are_listed(hl7):
    body = message(obx("x"), obx("1", time="now"), obx("1~2"), patient="PID|1||||||x")
    found = (("OBX^1^5", "number"), ("OBX^2^14", "date_time"), ("OBX^3^5", "one_value"))
    hl7.refuse(body, "AE", ("PID^1^7", "date_time"), *found)


def test_the_acknowledgement_of_an_error_names_the_message_and_the_code(hl7):
    answer = hl7.refuse(message(kind="ORU^R99"), "AR", ("MSH^1^9", "trigger_event"))
    assert named(answer, "MSA")[0][2] == "CONTROL1"
    (error,) = named(answer, "ERR")
    assert error[3] == "201^Unsupported event code^HL70357"
    assert error[4] == "E"


def test_the_body_must_be_in_the_stated_character_set(hl7):
    note = obx("Fieber über 39 °C", "11506-3^Note^LN", "", "TX")
    read = []
    for charset, codec in (
        ("8859/1", "latin-1"),
        ("UNICODE UTF-8", "utf-8"),
        ("", "utf-8"),
        ("8859/15", "iso8859-15"),
    ):
        answer = hl7.predict(message(note, charset=charset).encode(codec))
        read.append(answer["predictions"])
    assert all(predictions == read[0] for predictions in read)
    for charset in ("UNICODE UTF-8", "ASCII", ""):
        body = message(note, charset=charset).encode("latin-1")
        hl7.refuse(body, "AR", ("MSH^1^18", "charset"))


def test_other_media_types_and_parameters_are_refused(hl7):
    answer = hl7.post(GOOD, type_="application/json")
    assert (answer.status_code, answer.headers["accept"]) == (
        415,
        "application/hl7-v2, x-application/hl7-v2+er7",
    )
    assert hl7.post(GOOD, as_of="today").status_code == 422
    assert hl7.post(GOOD, explain="full").status_code == 422


def test_a_request_that_the_service_cannot_answer_gets_a_rejection(hl7):
    answer = hl7.post(GOOD + "NTE|1||" + "x" * 400_000)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/hl7-v2")
    assert named(answer.text, "MSA")[0][1] == "AR"
    assert errors_of(answer.text) == {("", "body-too-large")}
    late = hl7.service.client.post(
        "/hl7v2",
        content=GOOD,
        headers={"Content-Type": "application/hl7-v2", "M3H-Deadline-Ms": "0"},
    )
    assert late.status_code == 422


# --------------------------------------------------------------------------------------- a batch


def test_a_batch_is_answered_in_order(hl7):
    bad = GOOD.replace("|112|", "|x|").replace("CONTROL1", "CONTROL2")
    batch = "FHS|^~\\&\rBHS|^~\\&\r" + GOOD + bad + "BTS|2\rFTS|1\r"
    text = hl7.post(batch).text
    assert [fields[1:3] for fields in named(text, "MSA")] == [
        ["AA", "CONTROL1"],
        ["AE", "CONTROL2"],
    ]
    assert (segments_of(text)[0][0], segments_of(text)[-1]) == ("BHS", ["BTS", "2"])
    assert errors_of(text) == {("OBX^1^5", "number")}
    items = hl7.post(batch, "application/json").json()["items"]
    assert len(items[0]["predictions"]) == 44
    assert items[1]["errors"][0]["pointer"] == "OBX^1^5"


def test_a_batch_has_a_limited_number_of_messages(hl7):
    hl7.refuse(GOOD * 5, "AE", ("BHS^1", "item_count"))


# ------------------------------------------------------------------------------------- any input


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_any_broken_message_is_answered(hl7, data):
    body = bytearray(message(visit(), OBR, obx("112"), obx("Febrile.", "1^N^L", "", "TX")).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    answer = hl7.post(bytes(body))
    assert answer.status_code in (200, 422)
    assert named(answer.text, "MSA")
    assert NAME not in answer.text


TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20)


@settings(max_examples=80)
@given(st.lists(st.lists(TEXTS.map(str.strip), min_size=1, max_size=4), min_size=1, max_size=5))
def test_components_are_split_as_by_another_parser(fields):
    """Compared with the library `hl7`, which is too slow for the service."""
    line = "ZZZ|" + "|".join("^".join(map(escaped, parts)) for parts in fields)
    text = f"MSH|^~\\&|A\r{line}"
    segment = parse_message(text).segments[1]
    parsed = reference.parse(text)
    for i, parts in enumerate(fields, 1):
        expected = ["" if part == '""' else part for part in parts]
        assert (segment.components(i) or [""]) == expected
        field = parsed.segment("ZZZ")[i]
        first = field[0] if isinstance(field[0], list) else [str(field)]
        assert [parsed.unescape(str(part)) for part in first] == parts


@given(TEXTS)
def test_an_escaped_text_is_read_unchanged(text):
    assert make_unescape(Delimiters())(escaped(text)) == text
