"""Character sets of messages (HL7 v2.5.1, MSH-18, table 0211)."""

import re
from typing import Final

from service.interop.hl7v2.er7 import invalid, location

UTF8_NAME: Final = "UNICODE UTF-8"
_CODECS = {
    "": "utf-8",  # ASCII by the standard, of which UTF-8 is a superset
    "ASCII": "ascii",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
    **{f"8859/{part}": f"iso8859_{part}" for part in (*range(1, 10), 15)},
}
_HEADER = re.compile(rb"MSH([^\r\n])[^\r\n]*")
_FRAME = b"\x0b\x1c\r\n \t"
_MARK = b"\xef\xbb\xbf"


def decode(body: bytes) -> str:
    """Decodes a message by the first character set of its first MSH-18.

    An MLLP frame and a UTF-8 byte order mark are removed.

    Raises InvalidPayload: the character set is not read, or the body is not in it.
    """
    body = body.removeprefix(_MARK).strip(_FRAME)
    place = location("MSH", 1, 18)
    header = _HEADER.search(body)
    names = [b""]
    if header is not None:
        fields = header[0].split(header[1])
        names = re.split(rb"[~^]", fields[17]) if len(fields) > 17 else names
    codec = _CODECS.get(names[0].decode("latin-1").strip().upper())
    if codec is None or any(name not in (b"", names[0]) for name in names[1:]):
        detail = f"must be one character set of {', '.join(filter(None, _CODECS))}"
        raise invalid(place, "charset", detail)
    try:
        return body.decode(codec)
    except UnicodeDecodeError:
        raise invalid(place, "charset", "the message is not in its character set") from None
