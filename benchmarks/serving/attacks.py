"""Attacks: requests and connections that are cheap to send and could be expensive for the service.

Each attack is a coroutine function of the service's port. It returns the outcomes: HTTP status
codes; `closed`: the service closed the connection without an answer; `refused`: it did not accept
the connection; `unanswered`: no answer within ANSWER_SECONDS; `held open`: still connected.
"""

import asyncio
import base64
import io
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import PIL.Image

MAX_BYTES = 32 * 2**20 - 1024  # just below the service's default limit of a body, 32 MiB
AS_OF = "2026-11-23T10:00:00Z"
JSON = "application/json"
ANSWER_SECONDS = 30.0

Outcomes = list[str]


@dataclass(frozen=True)
class Attack:
    """`deadline_ms`: the deadline of its requests; None if it sends no complete request."""

    name: str
    run: Callable[[int], Awaitable[Outcomes]]
    deadline_ms: int | None = None


# ----------------------------------------------------------------------------------------- sending


def request(
    body: bytes, path: str = "/predict?explain=none", deadline_ms: int = 2_000, **headers: str
) -> bytes:
    fields = {
        "Host": "localhost",
        "Content-Type": JSON,
        "Content-Length": str(len(body)),
        "M3H-Deadline-Ms": str(deadline_ms),
        "Connection": "close",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def exchange(port: int, content: bytes, seconds: float = ANSWER_SECONDS) -> str:
    """Sends bytes on a new connection and returns the outcome."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return "refused"
    try:
        async with asyncio.timeout(seconds):
            sending = asyncio.ensure_future(_send(writer, content))
            line = await reader.readline()
            await reader.read()
            await sending
    except TimeoutError:
        return "unanswered"
    except OSError:
        return "closed"
    finally:
        writer.close()
    return line.split()[1].decode() if line else "closed"


async def _send(writer: asyncio.StreamWriter, content: bytes) -> None:
    with suppress(OSError):  # the service may answer and close before it has read everything
        writer.write(content)
        await writer.drain()


async def _bodies(
    content: Callable[[], bytes], port: int, *, count: int = 1, path: str = "/predict?explain=none"
) -> Outcomes:
    request_bytes = request(content(), path)
    return list(await asyncio.gather(*(exchange(port, request_bytes) for _ in range(count))))


def body_attack(name: str, content: Callable[[], bytes], **options: object) -> Attack:
    return Attack(name, partial(_bodies, content, **options), deadline_ms=2_000)


# ------------------------------------------------------------------------------------------ bodies


def _filled(start: str, item: str, end: str, size: int = MAX_BYTES) -> bytes:
    """Returns `start`, as many comma-separated `item`s as fit into `size`, and `end`."""
    count = (size - len(start) - len(end)) // (len(item) + 1)
    return (start + ",".join([item] * count) + end).encode()


def _payload_of(field: str, item: str, size: int = MAX_BYTES) -> bytes:
    return _filled(f'{{"as_of":"{AS_OF}","{field}":[', item, "]}", size)


def _series(variable: str, value: str = "70") -> str:
    times = '["2026-11-23T09:00:00Z"]'
    return f'{{"variable":"{variable}","unit":"/min","times":{times},"values":[{value}]}}'


def _long_series(time: str, value: str) -> bytes:
    count = (MAX_BYTES - 200) // (len(time) + len(value) + 2)
    times, values = ",".join([time] * count), ",".join([value] * count)
    return (
        f'{{"as_of":"{AS_OF}","series":[{{"variable":"heart_rate","unit":"/min",'
        f'"times":[{times}],"values":[{values}]}}]}}'
    ).encode()


def _names() -> bytes:
    """Returns an object with as many different names as fit into MAX_BYTES."""
    count = MAX_BYTES // 14
    return ("{" + ",".join(f'"n{i:08d}":1' for i in range(count)) + "}").encode()


def _notes(count: int, characters: int) -> bytes:
    sentence = "Fever and cough since yesterday, no chest pain. Started on antibiotics. "
    text = (sentence * (characters // len(sentence) + 1))[:characters]
    notes = [
        {"kind": "progress", "time": "2026-11-23T09:00:00Z", "text": f"{number} {text}"}
        for number in range(count)
    ]
    return json.dumps({"as_of": AS_OF, "notes": notes}).encode()


def _images(*contents: bytes) -> bytes:
    images = [
        {
            "time": "2026-11-23T09:00:00Z",
            "media_type": "image/png",
            "data": base64.b64encode(content).decode(),
        }
        for content in contents
    ]
    return json.dumps({"as_of": AS_OF, "images": images}).encode()


def _deep_png(width: int, height: int) -> bytes:
    """Returns a 16-bit greyscale PNG of zeros, which is small to send and large in memory."""
    row = b"\0" * (1 + 2 * width)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _colour_png(side: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.zeros((side, side, 4), np.uint8)
    PIL.Image.fromarray(pixels, "RGBA").save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


BODIES = (
    body_attack("series are numbers, 2.4 MB", lambda: _payload_of("series", "1", 2_400_000)),
    body_attack("series are numbers, 33 MB", lambda: _payload_of("series", "1")),
    body_attack("series are empty objects, 33 MB", lambda: _payload_of("series", "{}")),
    body_attack("notes are arrays, 33 MB", lambda: _payload_of("notes", "[]")),
    body_attack("invalid times, 33 MB", lambda: _long_series('"x"', "1")),
    body_attack("values are strings, 33 MB", lambda: _long_series('"2026-11-23T09:00:00Z"', '"x"')),
    body_attack(
        "values are infinite, 33 MB", lambda: _long_series('"2026-11-23T09:00:00Z"', "1e999")
    ),
    body_attack("unknown fields, 33 MB", _names),
    body_attack("a name repeated, 33 MB", lambda: _filled("{", '"as_of":"x"', "}")),
    body_attack("deep nesting, 33 MB", lambda: b"[" * MAX_BYTES),
    body_attack(
        "batch of empty arrays, 33 MB",
        lambda: _filled('{"items":[', "[]", "]}"),
        path="/predict/batch",
    ),
    body_attack(
        "batch of 64 invalid patients, 33 MB",
        lambda: _filled('{"items":[', _payload_of("series", "1", MAX_BYTES // 65).decode(), "]}"),
        path="/predict/batch",
    ),
    body_attack("one series, valid, 33 MB", lambda: _long_series('"2026-11-23T09:00:00Z"', "70")),
    body_attack(
        "series of one observation, 33 MB", lambda: _payload_of("series", _series("heart_rate"))
    ),
    body_attack(
        "implausible series of one observation, 33 MB",
        lambda: _payload_of("series", _series("heart_rate", "9999")),
    ),
    body_attack("unknown variables, 33 MB", lambda: _payload_of("series", _series("shoe_size"))),
    body_attack("one note of 33 MB", lambda: _notes(1, MAX_BYTES - 1_000)),
    body_attack(
        "200 notes of 600 characters, explain=full",
        lambda: _notes(200, 600),
        path="/predict?explain=full",
    ),
    body_attack(
        "1,000 notes of 950 characters, explain=full",
        lambda: _notes(1_000, 950),
        path="/predict?explain=full",
    ),
    body_attack("20,000 line breaks in a note", lambda: _notes_of("\n" * 20_000 + "No pneumonia.")),
    body_attack("16-bit PNG of 6,300 x 6,300", lambda: _images(_deep_png(6_300, 6_300))),
    body_attack("16-bit PNG of 1 x 40,000,000", lambda: _images(_deep_png(1, 40_000_000))),
    body_attack("16-bit PNG of 40,000,000 x 1", lambda: _images(_deep_png(40_000_000, 1))),
    body_attack("RGBA PNG of 6,300 x 6,300", lambda: _images(_colour_png(6_300))),
    body_attack("eight 16-bit PNGs at once", lambda: _images(_deep_png(6_300, 6_300)), count=8),
)


def _notes_of(text: str) -> bytes:
    note = {"kind": "progress", "time": "2026-11-23T09:00:00Z", "text": text}
    return json.dumps({"as_of": AS_OF, "notes": [note]}).encode()


# ------------------------------------------------------------------------------------- connections


async def _hold(port: int, content: bytes, count: int, seconds: float) -> Outcomes:
    """Opens connections that send only `content`; returns their outcomes after `seconds`."""
    connections = []
    outcomes: Outcomes = []
    for _ in range(count):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            outcomes.append("refused")
            continue
        with suppress(OSError):
            writer.write(content)
        connections.append((reader, writer))
    await asyncio.sleep(seconds)
    for reader, writer in connections:
        try:
            async with asyncio.timeout(0.001):
                line = await reader.readline()
            outcomes.append(line.split()[1].decode() if line else "closed")
        except TimeoutError:
            outcomes.append("held open")
        except OSError:
            outcomes.append("closed")
        writer.close()
    return outcomes


def _idle_body(deadline_ms: int = 600_000) -> bytes:
    return request(b"", Content_Length=str(32 * 2**20), M3H_Deadline_Ms=str(deadline_ms))


async def _stream(port: int, start: bytes, part: bytes, count: int) -> Outcomes:
    """Sends `start`, then `part` up to `count` times, until the service answers or closes."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return ["refused"]
    answer = asyncio.ensure_future(reader.readline())
    writer.write(start)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            for _ in range(count):
                if answer.done():
                    break
                writer.write(part)
                await writer.drain()
            line = await answer
    except TimeoutError:
        return ["unanswered"]
    except OSError:
        with suppress(OSError, TimeoutError):
            line = await asyncio.wait_for(asyncio.shield(answer), 1)
            return [line.split()[1].decode() if line else "closed"]
        return ["closed"]
    finally:
        answer.cancel()
        writer.close()
    return [line.split()[1].decode() if line else "closed"]


async def _slow_readers(port: int, count: int, seconds: float) -> Outcomes:
    """Clients that request large answers repeatedly and read none."""
    request_bytes = request(
        json.dumps({"as_of": AS_OF, "tabular": {"age": 71}}).encode(),
        "/predict?explain=full",
        Connection="keep-alive",
    )
    return await _hold(port, request_bytes * 200, count, seconds)


_HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"

CONNECTIONS = (
    Attack("16 idle bodies", partial(_hold, content=_idle_body(), count=16, seconds=10)),
    Attack("300 idle bodies", partial(_hold, content=_idle_body(), count=300, seconds=10)),
    Attack("300 silent connections", partial(_hold, content=b"", count=300, seconds=15)),
    Attack("300 incomplete request heads", partial(_hold, content=_HEAD, count=300, seconds=15)),
    Attack(
        "a header of 300 MB",
        partial(_stream, start=_HEAD + b"X-Long: ", part=b"x" * 2**20, count=300),
    ),
    Attack(
        "3,000,000 headers",
        partial(_stream, start=_HEAD, part=b"X-A: 1\r\n" * 10_000, count=300),
    ),
    Attack(
        "a URL of 100 MB",
        partial(_stream, start=b"GET /", part=b"x" * 2**20, count=100),
    ),
    Attack(
        "200,000 pipelined requests",
        partial(_stream, start=b"", part=(_HEAD + b"\r\n") * 1_000, count=200),
    ),
    Attack("50 clients that do not read", partial(_slow_readers, count=50, seconds=10)),
)

ATTACKS = (*BODIES, *CONNECTIONS)
