"""Grey levels of DICOM images: rescale, windows, lookup tables, inversion (PS3.3, C.11)."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from schemas.features.images.decoding import MAX_SIDE, decode
from schemas.features.images.dicom_image import decode_dicom
from tests.support.inputs import dicom_files
from tests.support.inputs.chest_xrays import encoded, xray
from tests.support.inputs.dicom_files import SYNTAXES, dicom
from tests.support.inputs.image_requests import image, pixels

INSTALLED = Path(pydicom.__file__).parent / "data" / "test_files"
FILM = np.asarray(xray((200, 160)))
DEEP = FILM.astype(np.uint16) * 16


def greys(data):
    return np.asarray(decode_dicom(data, 40_000_000, MAX_SIDE))


def lut(values, first, bits):
    """A lookup table; its outputs of 8 bits are bytes."""
    item = Dataset()
    item.add_new(0x00283002, "US", [len(values) % 65_536, first % 65_536, bits])
    item.add_new(0x00283006, "OW", np.asarray(values, "u1" if bits == 8 else "<u2").tobytes())
    return [item]


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_film_in_any_transfer_syntax_is_read_as_the_equal_png(name):
    syntax = SYNTAXES[name]
    from_dicom = pixels(image(dicom(FILM, syntax), "application/dicom")).astype(int)
    from_png = pixels(image(encoded(FILM))).astype(int)
    assert np.abs(from_dicom - from_png).max() <= (0 if syntax not in dicom_files.LOSSY else 12)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("offset", [0, 300])
def test_deep_pixels_without_a_window_are_read_as_the_equal_16_bit_png(bits, offset):
    deep = (FILM.astype(np.uint16) * ((1 << bits) // 512) + offset).astype(np.uint16)
    from_png = decode(encoded(deep), "image/png", 160, 40_000_000)
    from_dicom = decode(dicom(deep, bits=bits), "application/dicom", 160, 40_000_000)
    assert np.array_equal(np.asarray(from_dicom.grey), np.asarray(from_png.grey))
    assert from_dicom.size == from_png.size == (160, 200)[::-1]
    assert from_dicom.coloured == 0


def test_monochrome1_and_the_inverse_shape_are_one_inversion():
    assert np.array_equal(greys(dicom(FILM)), FILM)
    for tags in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ):
        assert np.array_equal(greys(dicom(FILM, **tags)), 255 - FILM)
    assert np.array_equal(greys(dicom(FILM, PresentationLUTShape="IDENTITY")), FILM)


def test_an_inverted_film_is_read_like_the_film():
    stored = 4095 - DEEP
    expected = greys(dicom(DEEP, bits=12)).astype(int)
    for tags in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"RescaleSlope": -1, "RescaleIntercept": 4095},
    ):
        shown = greys(dicom(stored, bits=12, **tags)).astype(int)
        assert np.abs(shown - expected).max() <= 1


WINDOWS = st.tuples(
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    st.floats(-3000, 5000).map(lambda value: round(value, 1)),
    st.floats(1, 6000).map(lambda value: round(value, 1)),
)


@settings(max_examples=30)
@given(WINDOWS, st.booleans(), st.sampled_from([1.0, 0.5, -1.0, 2.0]), st.integers(-1024, 1024))
def test_windows_follow_the_standard(window, signed, slope, intercept):
    """Compared with pydicom, which computes the same functions in floating point."""
    function, center, width = window
    values = DEEP[::4, ::4]
    stored = (values.astype(np.int32) - 2048).astype(np.int16) if signed else values
    data = dicom(
        stored,
        bits=12,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=[center, 7],
        WindowWidth=[width, 7],
        VOILUTFunction=function,
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    rescaled = apply_modality_lut(stored, dataset)
    windowed = apply_windowing(rescaled, dataset).astype(float)
    low, high = (e * slope + intercept for e in ((-2048, 2047) if signed else (0, 4095)))
    expected = (windowed - low) / (high - low) * 255
    assert np.abs(greys(data) - expected).max() <= 0.51 + 255 / 4095


@pytest.mark.parametrize(
    "tags", [{"WindowWidth": 0}, {"WindowWidth": -5}, {"VOILUTFunction": "OTHER"}]
)
def test_an_invalid_window_counts_as_absent(tags):
    data = dicom(DEEP, bits=12, **{"WindowCenter": 100, "WindowWidth": 200} | tags)
    assert np.array_equal(greys(data), greys(dicom(DEEP, bits=12)))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_lookup_table_is_applied_before_a_window(bits):
    table = (np.linspace(0, 1, 3000) ** 2 * ((1 << bits) - 1)).astype(np.uint16)
    data = dicom(DEEP, bits=12, VOILUTSequence=lut(table, 500, bits), WindowCenter=1, WindowWidth=2)
    expected = table[np.clip(DEEP.astype(int) - 500, 0, 2999)] / ((1 << bits) - 1) * 255
    assert np.abs(greys(data) - expected).max() <= 0.51


def test_a_modality_lookup_table_is_applied_before_the_window():
    table = np.arange(4096)[::-1]
    tags = {"WindowCenter": 2048, "WindowWidth": 4096}
    mapped = greys(dicom(DEEP, bits=12, ModalityLUTSequence=lut(table, 0, 12), **tags))
    assert np.array_equal(mapped, greys(dicom(4095 - DEEP, bits=12, **tags)))
    without_window = greys(dicom(DEEP, bits=12, ModalityLUTSequence=lut(table, 0, 12)))
    assert np.array_equal(without_window, greys(dicom(4095 - DEEP, bits=12)))


def test_damaged_lookup_tables_count_as_absent():
    tags = {"VOILUTSequence": lut(range(20), 0, 3), "ModalityLUTSequence": lut([], 0, 12)}
    assert np.array_equal(greys(dicom(DEEP, bits=12, **tags)), greys(dicom(DEEP, bits=12)))


def test_padding_does_not_change_the_grey_levels():
    padded = DEEP.copy()
    padded[:, :70] = 4000
    shown = greys(dicom(padded, bits=12, PixelPaddingValue=4000))
    alone = greys(dicom(np.ascontiguousarray(DEEP[:, 70:]), bits=12))
    assert np.array_equal(shown[:, 70:], alone)


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "CT_small.dcm", "image_dfl.dcm", "examples_overlay.dcm"]
)
def test_installed_test_files_become_images(name):
    shown = greys((INSTALLED / name).read_bytes())
    assert shown.std() > 5


def test_nothing_is_printed_or_logged():
    """Pydicom quotes values in warnings; a second process shows what reaches its streams."""
    read = (
        "import logging, sys; logging.basicConfig(level=0)\n"
        "from schemas.features.images.dicom_image import decode_dicom\n"
        "for path in sys.argv[1:]:\n"
        "    try: decode_dicom(open(path, 'rb').read(), 10**7, 65535)\n"
        "    except ValueError: pass\n"
    )
    files = [
        str(INSTALLED / name)
        for name in (
            "badVR.dcm",
            "no_meta_group_length.dcm",
            "MR_small_padded.dcm",
            "MR_truncated.dcm",
        )
    ]
    done = subprocess.run([sys.executable, "-c", read, *files], capture_output=True, check=True)
    assert done.stdout == done.stderr == b""


def test_the_film_of_the_open_data_is_read_as_the_equal_png(open_data):
    path = open_data("dicom") / "dicom" / "nih_cxr.dcm"
    data = path.read_bytes()
    from_png = pixels(image(encoded(PIL.Image.fromarray(pydicom.dcmread(path).pixel_array))))
    assert np.array_equal(pixels(image(data, "application/dicom")), from_png)
