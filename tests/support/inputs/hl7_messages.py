"""HL7 v2 messages of a made patient whose name and number must not appear anywhere."""

from collections.abc import Sequence

NAME, NUMBER = "Quillfeather", "8675309"
AS_OF = "20310504120000+0000"
PID = f"PID|1||{NUMBER}^^^HOSP^MR||{NAME}^Ada||19631020|F"
OBR = "OBR|1|||24323-8^Panel^LN|||20310504110000"


def message(
    *segments: str,
    kind: str = "ORU^R01^ORU_R01",
    time: str = AS_OF,
    charset: str = "UNICODE UTF-8",
    patient: str | None = PID,
) -> str:
    """A message with PID and the given segments."""
    head = f"MSH|^~\\&|LAB|HOSP|M3H|HOSP|{time}||{kind}|CONTROL1|P|2.5.1||||||{charset}"
    return "".join(f"{line}\r" for line in (head, patient, *segments) if line)


def obx(
    value: str,
    code: str = "8867-4^Heart rate^LN",
    unit: str = "/min",
    kind: str = "NM",
    status: str = "F",
    time: str = "20310504110000",
    sub_id: str = "",
    number: int = 1,
) -> str:
    return f"OBX|{number}|{kind}|{code}|{sub_id}|{value}|{unit}|||||{status}|||{time}"


def visit(
    unit: str = "MICU", source: str = "7", admitted: str = "20310503120000", kind: str = "I"
) -> str:
    fields = [""] * 45
    fields[0], fields[1], fields[2], fields[3] = "PV1", "1", kind, unit
    fields[14], fields[44] = source, admitted
    return "|".join(fields)


def segments_of(answer: str) -> list[list[str]]:
    """The fields of each segment of an answer."""
    return [line.split("|") for line in answer.split("\r") if line]


def named(answer: str, name: str) -> list[list[str]]:
    return [fields for fields in segments_of(answer) if fields[0] == name]


def errors_of(answer: str) -> set[tuple[str, str]]:
    """Location and rule of each ERR segment."""
    return {(fields[2], fields[5].split("^")[0]) for fields in named(answer, "ERR")}


def comments_of(answer: str) -> Sequence[str]:
    return [fields[3] for fields in named(answer, "NTE")]
