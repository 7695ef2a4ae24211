"""Results in OBX segments: status, comparators, times, codes, units, documents."""

import base64

import pytest

from tests.service.interop.hl7v2.conftest import reasons, used
from tests.support.inputs.hl7_messages import OBR, PID, comments_of, message, obx

HEART_RATE = "8867-4^Heart rate^LN"
NOTE = "11506-3^Note^LN"


@pytest.mark.parametrize("status", ["F", "C", "P", "f"])
def test_final_corrected_and_preliminary_results_count(hl7, status):
    assert used(hl7.predict(message(obx("112", status=status)))) == {"heart_rate": 1}


@pytest.mark.parametrize("status", ["D", "I", "N", "O", "R", "S", "U", "W", "X", ""])
def test_other_results_never_count(hl7, status):
    answer = hl7.predict(message(obx("112", status=status)))
    assert used(answer) == {}
    assert reasons(answer) == {("OBX^1^11", "status")}


def test_a_correction_replaces_earlier_results_of_the_same_time(hl7):
    corrected = message(obx("40", status="P"), obx("41", status="F"), obx("112", status="C"))
    answer = hl7.predict(corrected)
    assert reasons(answer) == {("OBX^1", "superseded"), ("OBX^2", "superseded")}
    alone = hl7.predict(message(obx("112")))
    assert answer["predictions"] == alone["predictions"]


def test_a_withdrawn_result_removes_the_result_of_the_same_time(hl7):
    answer = hl7.predict(
        message(obx("112"), obx("112", status="W"), obx("90", time="20310504100000"))
    )
    assert used(answer) == {"heart_rate": 1}
    assert reasons(answer) == {("OBX^1", "status"), ("OBX^2^11", "status")}


@pytest.mark.parametrize(
    ("kind", "value", "bounds"),
    [
        ("NM", "0.5", 0),
        ("NM", ".5", 0),
        ("NM", "<0.5", 1),
        ("ST", "0.5", 0),
        ("ST", "1", 0),
        ("ST", "< 0.5", 1),
        ("ST", ">=0.5", 1),
        ("SN", "<^0.5", 1),
        ("SN", ">=^0.5", 1),
        ("SN", "^0.5", 0),
        ("SN", "=^0.5", 0),
    ],
)
def test_numbers_and_bounds_are_read(hl7, kind, value, bounds):
    answer = hl7.predict(message(obx(value, "2524-7^Lactate^LN", "mmol/L", kind)))
    assert used(answer) == {"lactate": 1}
    read_as = [entry for entry in answer["receipt"]["read_as"] if entry["pointer"] == "OBX^1"]
    assert len(read_as) == bounds


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("ST", "1,5", "text_value"),
        ("ST", "1.500", "text_value"),
        ("ST", "1e3", "text_value"),
        ("TX", "112", "text_value"),
        ("ST", "high", "text_value"),
        ("SN", "^1^-^5", "text_value"),
        ("SN", "^1^:^128", "text_value"),
        ("CE", "POS^positive^L", "coded_value"),
        ("DT", "20310504", "coded_value"),
        ("NM", "", "no_value"),
        ("NM", '""', "no_value"),
        ("SN", "<", "no_value"),
    ],
)
def test_other_values_are_not_read(hl7, kind, value, reason):
    answer = hl7.predict(message(obx(value, kind=kind)))
    assert used(answer) == {}
    assert {r for _, r in reasons(answer)} == {reason}


@pytest.mark.parametrize("value", ["1,5", "1 000", "one", "1e3", "--1", "NaN", "1_0"])
def test_an_invalid_number_of_a_variable_is_an_error(hl7, value):
    hl7.refuse(message(obx(value)), "AE", ("OBX^1^5", "number"))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("HR^Puls^L^8867-4^Heart rate^LN", None),
        ("8867-4^^LN", None),
        ("HR^Heart rate^L", "no_code"),
        ("1-8^Acyclovir^LN", "unknown_code"),
        ("", "no_code"),
    ],
)
def test_loinc_of_either_identifier_selects_the_variable(hl7, code, expected):
    answer = hl7.predict(message(obx("112", code)))
    assert used(answer) == ({} if expected else {"heart_rate": 1})
    assert reasons(answer) == ({("OBX^1^3", expected)} if expected else set())


def test_the_code_of_a_variable_with_this_name_is_named(hl7):
    answer = hl7.predict(message(obx("112", "HR^Heart rate^L")))
    (entry,) = answer["receipt"]["not_read"]
    assert "resembles heart_rate; LOINC of heart_rate: 8867-4" in entry["detail"]


@pytest.mark.parametrize(
    ("unit", "converted"),
    [("umol/L^micromole per liter^UCUM", True), ("^mg/dL", False), ("MG/DL", False)],
)
def test_units_are_read_as_in_a_payload(hl7, unit, converted):
    answer = hl7.predict(message(obx("1.5", "2160-0^Creatinine^LN", unit)))
    assert [e["pointer"] for e in answer["receipt"]["converted"]] == ["OBX^1"] * converted


def test_an_unknown_or_absent_unit_is_listed_at_its_result(hl7):
    answer = hl7.predict(message(obx("1.5", "2160-0^C^LN", "furlong"), obx("2", "2160-0^C^LN", "")))
    assert reasons(answer) == {("OBX^1", "unknown_unit"), ("OBX^2", "unit_required")}
    hl7.refuse(
        message(obx("1.5", "2160-0^C^LN", "furlong")),
        "AE",
        ("OBX^1", "unknown_unit"),
        strict="true",
    )


# -------------------------------------------------------------------------------------- the times


def test_a_time_without_zone_is_in_the_zone_of_the_header(hl7):
    local = hl7.predict(message(obx("112", time="203105041300"), time="20310504140000+0200"))
    zoned = hl7.predict(message(obx("112", time="20310504110000+0000")))
    assert local["predictions"] == zoned["predictions"]


def test_a_time_without_any_zone_is_refused(hl7):
    body = message(obx("112"), time="20310504120000")
    hl7.refuse(body, "AE", ("MSH^1^7", "time_zone"))
    hl7.refuse(body, "AE", ("OBX^1^14", "time_zone"), as_of="2031-05-04T12:00:00Z")


def test_a_result_without_time_has_that_of_its_order(hl7):
    with_own = hl7.predict(message(OBR, obx("112")))
    with_order = hl7.predict(message(OBR, obx("112", time="")))
    assert with_own["predictions"] == with_order["predictions"]
    assert reasons(hl7.predict(message(obx("112", time="")))) == {("OBX^1^14", "no_time")}


@pytest.mark.parametrize(
    ("time", "reason"), [("20310504", "no_time_of_day"), ("203105041201", "after_as_of")]
)
def test_an_inexact_or_later_result_is_not_read(hl7, time, reason):
    assert reasons(hl7.predict(message(obx("112", time=time)))) == {("OBX^1^14", reason)}


@pytest.mark.parametrize("time", ["2031-05-04", "20311304", "203105042500", "20310504110000+9900"])
def test_an_invalid_time_is_an_error(hl7, time):
    hl7.refuse(message(obx("112", time=time)), "AE", ("OBX^1^14", "date_time"))


# ---------------------------------------------------------------------------------- the documents


def test_lines_of_one_text_become_one_note(hl7):
    lines = [obx(line, NOTE, "", "TX") for line in ("Febrile.", "", "Hypotensive.")]
    answer = hl7.predict(message(*lines, obx("112")))
    assert answer["receipt"]["modalities"]["notes"]["status"] == "used"
    assert reasons(answer) == set()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("^TEXT^PLAIN^A^Patient febrile.", None),
        (f"^text^html^Base64^{base64.b64encode(b'<p>Patient febrile.</p>').decode()}", None),
        (f"^Application^RTF^Hex^{rb'{rtf1 Patient febrile.}'.hex()}", None),
        ("^Application^PDF^Base64^JVBERi0=", "media_type_not_read"),
        (f"^IMAGE^PNG^Base64^{base64.b64encode(b'x').decode()}", "not_a_chest_xray"),
        ("^TEXT^PLAIN^A^", "no_text"),
    ],
)
def test_encapsulated_documents_are_read_by_their_type(hl7, content, reason):
    answer = hl7.predict(message(obx(content, NOTE, "", "ED")))
    assert {r for _, r in reasons(answer)} == ({reason} if reason else set())


@pytest.mark.parametrize(
    ("content", "rule"),
    [("^TEXT^PLAIN^Base64^%%%", "base64"), ("^TEXT^PLAIN^zip^x", "allowed_values")],
)
def test_a_damaged_document_is_an_error(hl7, content, rule):
    hl7.refuse(message(obx(content, NOTE, "", "ED")), "AE", ("OBX^1^5", rule))


def test_escape_sequences_are_replaced(hl7):
    escaped = "Patient \\H\\febrile\\N\\ \\T\\ hypotensive\\.br\\sepsis \\S\\ lactate \\X34\\"
    read = hl7.predict(message(obx(escaped, NOTE, "", "FT")))
    plain = hl7.predict(
        message(
            obx(
                "^TEXT^PLAIN^Base64^"
                + base64.b64encode(b"Patient febrile & hypotensive\nsepsis ^ lactate 4").decode(),
                NOTE,
                "",
                "ED",
            )
        )
    )
    assert read["predictions"] == plain["predictions"]


def test_other_segments_are_listed(hl7):
    answer = hl7.predict(message("AL1|1||^Penicillin", "ZZZ|1", obx("112"), "NTE|1||comment"))
    assert reasons(answer) == {(f"{s}^1", "segment_not_read") for s in ("AL1", "ZZZ", "NTE")}
    assert any(
        c.startswith("AL1[1]: not read") for c in comments_of(hl7.acknowledged(message("AL1|1")))
    )


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ("PV1|1|O", "unknown_category"),
        ("PV1|1|I" + 12 * "|" + "9", "unknown_category"),
        ("PV1|1|I" + 43 * "|" + "20310504110000", "stale"),
        ("PV1|1|I" + 43 * "|" + "20310503", "stale"),
        ("PV1|1|I" + 43 * "|" + "20310504", None),
    ],
)
def test_an_unread_part_of_the_visit_is_listed(hl7, segment, reason):
    listed = {r for _, r in reasons(hl7.predict(message(segment)))}
    assert listed == ({reason} if reason else set())


@pytest.mark.parametrize(
    ("fields", "is_listed"),
    [("|Y", True), ("20310504|Y", True), ("20310505|Y", False), ("|N", False)],
)
def test_a_death_before_the_prediction_is_listed(hl7, fields, is_listed):
    answer = hl7.predict(message(obx("112"), patient=PID + 21 * "|" + fields))
    assert [e["pointer"] for e in answer["receipt"]["assumed"]] == ["PID^1^29"] * is_listed
