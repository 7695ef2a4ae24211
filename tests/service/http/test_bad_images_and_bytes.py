"""Damaged images, mutated requests and random bytes are refused without an echo of their values."""

import base64
import copy
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.servers.refusals import CANARY, assert_refused, post

# ----------------------------------------------------------------------------------- the images


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(pixels, 9))
        + png_chunk(b"IEND", b"")
    )


def good_image(kind: str, side: int = 64) -> bytes:
    out = io.BytesIO()
    shades = np.random.default_rng(0).integers(0, 255, (side, side), dtype=np.uint8)
    PIL.Image.fromarray(shades).save(out, kind)
    return out.getvalue()


IMAGES = {
    "no image": (CANARY.encode() * 10, "image"),
    "empty": (b"", "image"),
    "truncated": (good_image("PNG")[:-800], "image"),
    "one pixel over the limit": (png_of(40_000_001, 1, b""), "pixel_limit"),
    "a header that claims 2^62 pixels": (png_of(2**31 - 1, 2**31 - 1, b""), "pixel_limit"),
    "a bomb: small, and large when unpacked": (
        png_of(12_000, 12_000, bytes(12_001 * 1_000)),
        "pixel_limit",
    ),
    "more data than its header declares": (png_of(8, 8, bytes(50_000_000)), None),
    "a text chunk that unpacks to 64 MiB": (
        good_image("PNG")[:33]
        + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26), 9))
        + good_image("PNG")[33:],
        "image",
    ),
    "a GIF under another name": (b"GIF89a" + bytes(100), "image"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_unreadable_image_is_refused(service, payload, name):
    data, rule = IMAGES[name]
    payload["images"][0]["data"] = base64.b64encode(data).decode()
    answer = post(service, payload)
    if rule is None:
        assert answer.status_code == 200
    else:
        assert_refused(service, answer, 422, ("/images/0/data", rule))


def test_an_image_must_be_base64_of_its_media_type(service, payload):
    payload["images"][0]["media_type"] = "image/jpeg"
    assert_refused(service, post(service, payload), 422, ("/images/0/data", "media_type"))
    payload["images"][0] |= {"media_type": CANARY, "data": CANARY}
    problem = assert_refused(
        service,
        post(service, payload),
        422,
        ("/images/0/data", "base64"),
        ("/images/0/media_type", "allowed_values"),
    )
    assert any("'image/png'" in error["detail"] for error in problem["errors"])


def test_a_broken_image_is_refused_even_if_it_is_not_the_latest(service, payload):
    older = payload["images"][0] | {"time": "2031-05-01T00:00:00Z", "data": "AAAA"}
    payload["images"].append(older)
    assert_refused(service, post(service, payload), 422, ("/images/1/data", "image"))


# -------------------------------------------------------------------------------- any mutation

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5).map(lambda text: CANARY + text),
    st.builds(lambda: [CANARY]),
    st.builds(lambda: {CANARY: CANARY}),
    st.builds(list),
    st.builds(dict),
    st.just("2031-05-04T11:59:59Z"),
    st.just("9999-12-31T23:59:59-12:00"),
    st.just("0001-01-01T00:00:00+14:00"),
    st.just("loinc:8867-4"),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a JSON document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from paths(part, (*path, key))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_mutated_request_is_answered_without_repeating_input(service, payload, data):
    request = copy.deepcopy(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        *path, last = data.draw(st.sampled_from(sorted(paths(request), key=str)))
        parent = request
        for key in path:
            parent = parent[key]
        match data.draw(st.sampled_from(["replace", "remove", "repeat", "rename", "add"])):
            case "replace":
                parent[last] = data.draw(ODD)
            case "remove":
                del parent[last]
            case "repeat" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            case "rename" if isinstance(parent, dict):
                parent[CANARY] = parent.pop(last)
            case _ if isinstance(parent, dict):
                parent[data.draw(st.sampled_from([CANARY, "rate", "unit"]))] = data.draw(ODD)
        if not request:
            break
    strict = data.draw(st.sampled_from(["true", "false"]))
    answer = post(service, request, strict=strict)
    assert answer.status_code in (200, 400, 422), answer.text
    assert "Quillfeather" not in answer.text
    if answer.status_code != 200:
        assert_refused(service, answer, answer.status_code)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_broken_bytes_are_answered(service, payload, data):
    body = bytearray(json.dumps(payload).encode())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    answer = post(service, bytes(body))
    assert answer.status_code in (200, 400, 422), answer.text


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_broken_image_is_answered(service, payload, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
    image = bytearray(good_image(kind, 24))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(image) - 1))
        image[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    payload["images"][0] |= {
        "media_type": f"image/{kind.lower()}",
        "data": base64.b64encode(image).decode(),
    }
    answer = post(service, payload)
    assert answer.status_code in (200, 422), answer.text
