"""Decoding of images: greyscale conversion, EXIF orientation, 16-bit windows."""

import io
import itertools
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features.images.intensity import intensity_window
from tests.support.inputs.chest_xrays import encoded, png_chunk, xray
from tests.support.inputs.feature_requests import SPEC
from tests.support.inputs.image_requests import extract_images, image, pixels

EXIF_ORIENTATION = 0x0112
# By EXIF orientation, how a camera stores an upright picture.
STORED = {
    1: None,
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1", "P", "I;16"])
def test_an_image_of_any_mode_becomes_grey_pixels(mode):
    shown = xray((300, 200))
    if mode == "I;16":
        shown = PIL.Image.fromarray(np.asarray(shown).astype(np.uint16) * 16)
    else:
        shown = shown.convert(mode)
    read = pixels(image(encoded(shown)))
    assert read.shape == (1, SPEC.image_side, SPEC.image_side)
    assert read.dtype == np.uint8
    assert read.std() > 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_8_bit_image_is_scaled_without_stretching(kind, mode):
    data = encoded(xray((300, 200)).convert(mode), kind)
    grey = PIL.Image.open(io.BytesIO(data)).convert("L")
    expected = np.zeros((128, 128), np.uint8)
    expected[21 : 21 + 85] = np.asarray(grey.resize((128, 85), PIL.Image.Resampling.BILINEAR))
    read = pixels(image(data, f"image/{kind.lower()}"))
    np.testing.assert_array_equal(read[0], expected)


def test_a_cmyk_jpeg_is_converted_to_grey():
    data = encoded(xray((256, 256)).convert("RGB").convert("CMYK"), "JPEG")
    grey = PIL.Image.open(io.BytesIO(data)).convert("L")
    expected = np.asarray(grey.resize((128, 128), PIL.Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels(image(data, "image/jpeg"))[0], expected)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_exif_orientation_is_applied(kind, orientation):
    upright = xray((260, 200))
    stored = upright
    if STORED[orientation] is not None:
        stored = upright.transpose(STORED[orientation])
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    data = encoded(stored, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    read = pixels(image(data, f"image/{kind.lower()}")).astype(int)
    expected = pixels(image(encoded(upright))).astype(int)
    assert np.abs(read - expected).max() <= (0 if kind == "PNG" else 3)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", bytes(40)])
def test_damaged_exif_data_are_ignored(exif):
    data = encoded(xray(), "JPEG", exif=exif)
    plain = encoded(xray(), "JPEG")
    np.testing.assert_array_equal(
        pixels(image(data, "image/jpeg")), pixels(image(plain, "image/jpeg"))
    )


def deep(values):
    return encoded(values.astype(np.uint16))


def brightness(data):
    return pixels(image(data))[0].astype(float)


BASE = np.asarray(xray((400, 400))).astype(np.int64)
SHOWN = brightness(encoded(xray((400, 400))))
STRETCHED = (SHOWN - BASE.min()) / np.ptp(BASE) * 255
INSIDE = np.zeros((128, 128), bool)
INSIDE[30:98, 30:98] = True


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (4, 0), (16, 0), (64, 0), (257, 0), (16, 1000), (16, 32768)]
)
def test_a_16_bit_image_is_stretched_to_its_range_of_values(scale, offset):
    greys = brightness(deep(BASE * scale + offset))
    assert np.abs(greys - STRETCHED).max() < 3  # of 255: rounded down three times


def with_marker(values, level):
    out = values.copy()
    out[10:60, 330:390] = level
    return out


def with_border(values, level, width=50):
    out = values.copy()
    out[:width] = out[-width:] = level
    out[:, :width] = out[:, -width:] = level
    return out


def with_dead_pixels(values, level, share=0.0005):
    dead = np.random.default_rng(3).random(values.shape) < share
    return np.where(dead, level, values)


TWELVE_BITS = BASE * 16
NOISY = 60_000 + np.random.default_rng(4).integers(0, 5000, (50, 60))
DEEP_FILMS = {
    "white marker": with_marker(TWELVE_BITS, 65_535),
    "noisy white marker": with_marker(TWELVE_BITS, NOISY),
    "black marker": with_marker(TWELVE_BITS + 20_000, 0),
    "white border": with_border(TWELVE_BITS, 65_535),
    "black border": with_border(TWELVE_BITS + 20_000, 0),
    "wide white border": with_border(TWELVE_BITS, 65_535, 80),
    "white dead pixels": with_dead_pixels(TWELVE_BITS, 65_535),
    "black dead pixels": with_dead_pixels(TWELVE_BITS + 20_000, 0),
    "one white pixel": with_dead_pixels(TWELVE_BITS, 65_535, 1e-5),
    "marker and border": with_marker(with_border(TWELVE_BITS + 3000, 0), 65_535),
    "offset and marker": with_marker(TWELVE_BITS + 30_000, 65_535),
}


@pytest.mark.parametrize("name", DEEP_FILMS)
def test_markers_borders_and_dead_pixels_do_not_darken_a_16_bit_image(name):
    values = DEEP_FILMS[name]
    grey_left = BASE[np.isin(values - TWELVE_BITS, (0, 3000, 20_000, 30_000))]
    expected = np.clip((SHOWN - grey_left.min()) / np.ptp(grey_left) * 255, 0, 255)
    assert np.abs(brightness(deep(values)) - expected)[INSIDE].mean() < 10  # of 255


def test_a_16_bit_image_with_colour_channels_is_stretched():
    """Pillow keeps only the high byte of each channel, so a 12-bit image is almost black."""
    rows = [b"\0" + row.astype(">u2").repeat(2).tobytes() for row in (BASE * 16).astype(np.uint16)]
    for y, row in enumerate(rows):  # grey and alpha; alpha is opaque
        values = np.frombuffer(row[1:], ">u2").copy()
        values[1::2] = 65_535
        rows[y] = b"\0" + values.tobytes()
    header = struct.pack(">IIBBBBB", 400, 400, 16, 4, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    data += png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")
    assert np.abs(brightness(data) - STRETCHED)[INSIDE].mean() < 12  # 16 greys are left


@given(st.dictionaries(st.integers(0, 65_535), st.integers(1, 10**6), min_size=1, max_size=60))
def test_the_intensity_window_lies_within_the_values(counts):
    histogram = np.zeros(1 << 16, np.int64)
    for value, count in counts.items():
        histogram[value] = count
    low, high = intensity_window(histogram)
    assert min(counts) <= low <= high <= max(counts)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["L", "RGB", "RGBA", "LA", "P", "1", "I;16"]),
    st.integers(0, 2**32 - 1),
)
def test_images_of_any_size_and_mode_are_read(width, height, mode, seed):
    draw = np.random.default_rng(seed)
    if mode == "I;16":
        shown = PIL.Image.fromarray(draw.integers(0, 1 << 16, (height, width)).astype(np.uint16))
    else:
        grey = PIL.Image.fromarray(draw.integers(0, 256, (height, width)).astype(np.uint8))
        shown = grey.convert(mode)
    features = extract_images(image(encoded(shown)))
    assert features.arrays["image"]["pixels"].shape == (1, 128, 128)
    assert features.receipt.modalities["image"].unusual == 1.0


def test_the_order_of_images_has_no_influence_on_the_pixels():
    xrays = [image(encoded(xray((s, s), seed=s))) for s in (100, 120, 140)]
    chosen = [pixels(*order) for order in itertools.permutations(xrays)]
    assert all(np.array_equal(pixels, chosen[0]) for pixels in chosen)
