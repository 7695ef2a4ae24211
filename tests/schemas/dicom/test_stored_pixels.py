"""Stored pixel values of each transfer syntax, against references; damaged and hostile files."""

import struct
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dicom.data_elements import read_file
from schemas.dicom.header import HEADER_TAGS, check_pixel_format, header_of
from schemas.dicom.stored_pixels import read_stored_pixels
from schemas.request_errors import ImageError
from tests.support.inputs import dicom_files
from tests.support.inputs.dicom_files import LOSSY, SYNTAXES, dicom

INSTALLED = Path(pydicom.__file__).parent / "data" / "test_files"
MAX_PIXELS = 40_000_000
ENCAPSULATED = [name for name in SYNTAXES if SYNTAXES[name] not in dicom_files.NATIVE_SYNTAXES]
LOSSLESS = {name: uid for name, uid in SYNTAXES.items() if uid not in LOSSY}


def read(data):
    """The stored values as integers."""
    file = read_file(data, HEADER_TAGS)
    header = header_of(file)
    check_pixel_format(header, MAX_PIXELS, 65_535)
    stored = read_stored_pixels(file, header.format, MAX_PIXELS)
    return stored.table()[stored.indices(stored.values)]


def rule(data):
    with pytest.raises(ImageError) as caught:
        read(data)
    return caught.value.rule


# pydicom decodes these itself, with numpy and with Pillow.
@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI.dcm",
        "CT_small.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEG2000.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_padded.dcm",
        "examples_overlay.dcm",
        "image_dfl.dcm",
    ],
)
def test_an_installed_test_file_has_the_pixels_that_pydicom_reads(name):
    path = INSTALLED / name
    np.testing.assert_array_equal(read(path.read_bytes()), pydicom.dcmread(path).pixel_array)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"]
)
def test_a_lossless_copy_has_the_pixels_of_its_original(name):
    original = pydicom.dcmread(INSTALLED / "MR_small.dcm").pixel_array
    np.testing.assert_array_equal(read((INSTALLED / name).read_bytes()), original)


# The start of the SHA-256 of the values as little-endian int32, decoded once with pylibjpeg-libjpeg
# 2.5.0, which is under the GPL and no dependency.
LIBJPEG = {
    "JPEGLSNearLossless_08.dcm": "832dd54ff071afd508cc35006a69ebb2",
    "JPEGLSNearLossless_16.dcm": "1d1ea445c998e392aa887448ec75ee5f",
    "MR_small_jpeg_ls_lossless.dcm": "b8d9a6cee6ff2ea9edbe8b476e54b80c",
}


@pytest.mark.parametrize("name", LIBJPEG)
def test_jpeg_ls_has_the_pixels_of_another_decoder(name):
    values = read((INSTALLED / name).read_bytes()).astype("<i4")
    assert sha256(values.tobytes()).hexdigest()[:32] == LIBJPEG[name]


def test_extended_jpeg_with_12_bits_has_the_pixels_of_another_decoder():
    values = read((INSTALLED / "JPGExtended.dcm").read_bytes())
    samples = {(420, 140): 244, (230, 120): 95, (0, 0): 1}
    for at, expected in samples.items():
        assert abs(values[at] - expected) <= 1  # inverse DCTs round differently


# The precisions that a syntax has, if they are not 8, 10, 12 and 16 bits.
PRECISIONS = {dicom_files.BASELINE: (8,), dicom_files.EXTENDED: (8, 12)}


@pytest.mark.parametrize(
    ("name", "bits"),
    [(n, bits) for n, uid in SYNTAXES.items() for bits in PRECISIONS.get(uid, (8, 10, 12, 16))],
)
def test_each_transfer_syntax_keeps_the_values(name, bits):
    syntax = SYNTAXES[name]
    rows, columns = np.mgrid[0:48, 0:37]
    values = (rows * 5 + columns * 3 + 17).astype(np.int64) % 200 * ((1 << bits) // 256)
    values = values.astype(np.uint8 if bits == 8 else np.uint16)
    decoded = read(dicom(values, syntax, bits))
    tolerance = {dicom_files.NEAR_LOSSLESS: 2}.get(syntax, (1 << bits) // 10)
    if syntax in LOSSY:
        assert np.abs(decoded - values).mean() <= tolerance
    else:
        np.testing.assert_array_equal(decoded, values)


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(LOSSLESS)),
    st.integers(8, 16),
    st.booleans(),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
)
def test_lossless_values_of_any_size_and_sign_are_kept(name, bits, signed, shape, seed):
    syntax = SYNTAXES[name]
    low = -(1 << bits - 1) if signed else 0
    values = np.random.default_rng(seed).integers(low, low + (1 << bits), shape)
    kind = "i" if signed else "u"
    stored = values.astype(f"{kind}{1 if bits == 8 else 2}")
    np.testing.assert_array_equal(read(dicom(stored, syntax, bits)), values)


def test_bits_outside_the_stored_bits_are_not_read():
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    in_high_bits = dicom((values << 4) | 0xF00F, bits=8, HighBit=11)
    np.testing.assert_array_equal(read(in_high_bits), values & 0xFF)


# ------------------------------------------------------------------------- damaged, hostile files


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_truncated_file_is_refused(name):
    whole = dicom(
        np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8), SYNTAXES[name]
    )
    for share in (0.1, 0.5, 0.9, 0.99):
        assert rule(whole[: int(len(whole) * share)]) in ("image", "transfer_syntax")


@pytest.mark.parametrize("name", ENCAPSULATED)
def test_a_truncated_frame_in_a_whole_file_is_refused(name):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    frame = dicom_files.compressed(pixels, SYNTAXES[name], 8)
    for share in (0.02, 0.5, 0.9):
        cut = frame[: int(len(frame) * share)]
        assert rule(dicom(pixels, SYNTAXES[name], frame=cut)) == "image"


@pytest.mark.parametrize("name", ENCAPSULATED)
def test_a_frame_of_another_size_than_the_header_says_is_refused(name):
    large = np.zeros((512, 512), np.uint8)
    frame = dicom_files.compressed(large, SYNTAXES[name], 8)
    small = np.zeros((16, 16), np.uint8)
    assert rule(dicom(small, SYNTAXES[name], frame=frame)) == "image"


@pytest.mark.parametrize("name", SYNTAXES)
def test_an_image_of_more_pixels_than_the_limit_is_refused_before_decoding(name):
    huge = dicom(np.zeros((16, 16), np.uint8), SYNTAXES[name], Rows=65_535, Columns=65_535)
    assert rule(huge) == "pixel_limit"


def test_a_jpeg_2000_image_of_many_tiles_is_refused():
    frame = bytearray(dicom_files.compressed(np.zeros((256, 256), np.uint8), dicom_files.J2K, 8))
    struct.pack_into(">2I", frame, 24, 1, 1)  # size of a tile
    data = dicom(np.zeros((256, 256), np.uint8), dicom_files.J2K, frame=bytes(frame))
    assert rule(data) == "image"


def test_a_header_of_many_elements_ends_in_time():
    file = dicom(np.zeros((8, 8), np.uint8))
    start = file.index(b"\x10\x00\x10\x00")
    element = b"\x09\x00\x01\x10SH\x00\x00"
    assert rule(file[:start] + element * 200_000 + file[start:]) == "image"


def test_sequences_that_are_nested_deeply_are_refused():
    file = dicom(np.zeros((8, 8), np.uint8))
    start = file.index(b"\x10\x00\x10\x00")
    opened = b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    assert rule(file[:start] + opened * 20_000 + file[start:]) == "image"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"BitsStored": 7, "HighBit": 6}, "bits_stored"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "bits_stored"),
        ({"HighBit": 3}, "bits_stored"),
        ({"Rows": 0}, "image"),
        ({"Columns": None}, "image"),
    ],
)
def test_a_form_that_is_not_read_is_refused(tags, expected):
    assert rule(dicom(np.zeros((8, 8), np.uint8), **tags)) == expected


@pytest.mark.parametrize("name", ["meta_missing_tsyntax.dcm", "ExplVR_LitEndNoMeta.dcm"])
def test_a_file_without_a_transfer_syntax_is_refused(name):
    assert rule((INSTALLED / name).read_bytes()) in ("transfer_syntax", "image")


@settings(max_examples=60)
@given(st.sampled_from(sorted(SYNTAXES)), st.data())
def test_any_broken_file_is_read_or_refused(name, data):
    pixels = np.random.default_rng(1).integers(0, 255, (24, 24)).astype(np.uint8)
    file = bytearray(dicom(pixels, SYNTAXES[name]))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(132, len(file) - 1))
        file[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with suppress(ImageError):
        read(bytes(file))
