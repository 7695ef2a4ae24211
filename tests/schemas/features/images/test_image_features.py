"""Images: which film is read, how its pixels become grey, and what is refused."""

import io
import itertools
import random
import struct
import zlib
from datetime import UTC, datetime, timedelta

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features import FeatureSpec, features, film_read
from schemas.features.images.decoding import LONGEST_SIDE, window
from schemas.payload import InvalidPayload, as_payload
from tests.support.chest_films import black_png, encoded, film, png_chunk

SPEC = FeatureSpec.default()
AS_OF = datetime(2026, 11, 23, 10, tzinfo=UTC)
EXIF_ORIENTATION = 0x0112
# What a camera stores of an upright picture, by the orientation that it then states.
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


def image(data, media_type="image/png", hours_before=1.0, **more):
    time = AS_OF - timedelta(hours=hours_before)
    return {"time": time, "media_type": media_type, "data": data, **more}


def read(*images, spec=SPEC, **parts):
    return features(as_payload({"as_of": AS_OF, "images": list(images), **parts}), spec)


def pixels(*images):
    return read(*images).arrays["image"]["pixels"]


def ignored(found):
    return {(entry.pointer, entry.reason) for entry in found.receipt.ignored}


def refused(*images, spec=SPEC):
    with pytest.raises(InvalidPayload) as caught:
        read(*images, spec=spec)
    return {(error.pointer, error.rule) for error in caught.value.errors}


# --- which film is read -----------------------------------------------------------------------


def test_the_latest_film_is_read_and_the_others_are_named():
    early, late = encoded(film(seed=1)), encoded(film(seed=2))
    found = read(image(late, hours_before=1), image(early, hours_before=9))
    np.testing.assert_array_equal(found.arrays["image"]["pixels"], pixels(image(late)))
    assert ignored(found) == {("/images/1", "not_the_latest_image")}


@pytest.mark.parametrize("view", ["LATERAL", "LL", "lat", "left lateral", "LAO", "AP LLD"])
def test_a_film_of_another_view_never_replaces_a_frontal_one(view):
    frontal = image(encoded(film(seed=1)), hours_before=2, view="PA")
    found = read(frontal, image(encoded(film(seed=2)), hours_before=1, view=view))
    np.testing.assert_array_equal(found.arrays["image"]["pixels"], pixels(frontal))
    assert ignored(found) == {("/images/1", "view_not_read")}


def test_with_no_frontal_film_none_is_read_and_a_warning_says_so():
    found = read(image(encoded(film()), view="LATERAL"), tabular={"age": 70})
    assert "image" not in found.arrays
    assert found.receipt.modalities["image"].status == "absent"
    assert ignored(found) == {("/images/0", "view_not_read")}
    assert found.receipt.warnings == ("no chest X-ray is read: none has a frontal view",)


def test_a_view_that_is_unknown_is_read_and_the_receipt_says_so():
    found = read(image(encoded(film()), view="PA and lateral"))
    np.testing.assert_array_equal(found.arrays["image"]["pixels"], pixels(image(encoded(film()))))
    assert ignored(found) == {("/images/0/view", "unknown_category")}
    assert ignored(read(image(encoded(film()), view="?"))) == set()


def test_a_bundle_that_was_trained_on_lateral_films_reads_them():
    spec = SPEC.model_copy(update={"views": ("frontal", "lateral")})
    found = read(image(encoded(film()), view="LATERAL"), spec=spec)
    assert found.arrays["image"]["pixels"].any()
    assert ignored(found) == set()


@pytest.mark.parametrize(
    "views", [("PA", "AP"), ("AP", "frontal"), ("frontal", None), (None, None)]
)
def test_of_two_films_of_one_time_the_same_is_read_in_any_order(views):
    better = image(encoded(film((300, 300), seed=1)), view=views[0])
    other = image(encoded(film((256, 256), seed=2)), view=views[1])
    for order, index in (((better, other), 1), ((other, better), 0)):
        found = read(*order)
        np.testing.assert_array_equal(found.arrays["image"]["pixels"], pixels(better))
        assert ignored(found) == {(f"/images/{index}", "not_the_latest_image")}
        assert f"/images/{1 - index}" in found.receipt.ignored[0].detail


def test_times_are_compared_as_moments_whatever_their_zone():
    late = image(encoded(film(seed=1))) | {"time": "2026-11-23T10:30:00+02:00"}
    early = image(encoded(film(seed=2))) | {"time": "2026-11-23T08:00:00Z"}
    assert film_read(as_payload({"as_of": AS_OF, "images": [late, early]}), SPEC) == 0


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_order_of_films_never_decides(data):
    drawn = st.tuples(
        st.sampled_from([0.5, 1.0, 2.0]),
        st.sampled_from([None, "PA", "AP", "LATERAL", "XYZ", "LAO"]),
        st.integers(0, 3),
    )
    files = [encoded(film((64 + 8 * seed, 64), seed=seed)) for seed in range(4)]
    images = [
        image(files[file], hours_before=hours, view=view)
        for hours, view, file in data.draw(st.lists(drawn, min_size=1, max_size=5))
    ]
    shuffled = images[:]
    random.Random(data.draw(st.integers())).shuffle(shuffled)
    one, other = read(*images, tabular={"age": 1}), read(*shuffled, tabular={"age": 1})
    assert one.receipt.modalities == other.receipt.modalities
    assert one.receipt.warnings == other.receipt.warnings
    for name, array in one.arrays.get("image", {}).items():
        np.testing.assert_array_equal(array, other.arrays["image"][name])


def test_an_image_of_another_kind_is_not_taken_for_a_chest_xray():
    found = read(image(encoded(film()), kind="photograph"), tabular={"age": 5})
    assert "image" not in found.arrays
    assert ignored(found) == {("/images/0/kind", "unknown_category")}


def test_the_receipt_of_a_film_that_is_known_is_the_same():
    images = [image(encoded(film()), view="XYZ"), image(encoded(film()), hours_before=3)]
    payload = as_payload({"as_of": AS_OF, "images": images})
    known = features(payload, SPEC, known={"image"})
    assert known.arrays == {"image": {}}
    assert known.receipt == features(payload, SPEC).receipt


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media_type", "rule"),
    [
        (b"no image at all", "image/png", "image"),
        (b"", "image/png", "image"),
        (encoded(film())[:3000], "image/png", "image"),
        (encoded(film(), "JPEG")[:3000], "image/jpeg", "image"),
        (encoded(film()), "image/jpeg", "media_type"),
        (encoded(film(), "JPEG"), "image/png", "media_type"),
        (encoded(film(), "GIF"), "image/png", "image"),
        (black_png(40_000, 2), "image/png", None),
        (black_png(LONGEST_SIDE + 1, 1), "image/png", "pixel_limit"),
        (black_png(1, LONGEST_SIDE + 1, 16), "image/png", "pixel_limit"),
        (black_png(6325, 6325, 1), "image/png", "pixel_limit"),
    ],
)
def test_an_unreadable_image_is_refused(data, media_type, rule):
    if rule is None:
        assert read(image(data, media_type)).receipt.modalities["image"].unusual == 1.0
    else:
        assert refused(image(data, media_type)) == {("/images/0/data", rule)}


@pytest.mark.parametrize("broken", [b"broken", encoded(film())[:2000]])
def test_a_broken_film_is_never_replaced_by_an_older_one(broken):
    older = image(encoded(film()), hours_before=9)
    assert refused(older, image(broken)) == {("/images/1/data", "image")}


@pytest.mark.parametrize("view", [None, "LATERAL"])
def test_data_of_no_image_are_refused_even_where_another_film_is_read(view):
    other = image(b"broken", hours_before=9, view=view)
    assert refused(other, image(encoded(film()))) == {("/images/0/data", "image")}


def test_only_the_film_that_is_read_is_decoded():
    size = 64 * 64
    spec = SPEC.model_copy(update={"max_pixels": size})
    latest = image(encoded(film((64, 64))))
    others = [
        image(encoded(film((500, 500))), hours_before=9),
        image(encoded(film())[:2000], hours_before=8),
        image(encoded(film((500, 500))), view="LATERAL"),
    ]
    found = read(*others, latest, spec=spec)
    np.testing.assert_array_equal(found.arrays["image"]["pixels"], pixels(latest))
    assert len(found.receipt.ignored) == 3
    too_small = spec.model_copy(update={"max_pixels": size - 1})
    assert refused(latest, spec=too_small) == {("/images/0/data", "pixel_limit")}


def test_four_films_of_full_size_are_read():
    films = [image(black_png(3500, 3000), hours_before=hours) for hours in (1, 2, 3, 4)]
    assert len(read(*films).receipt.ignored) == 3


def test_a_progressive_jpeg_counts_twice():
    spec = SPEC.model_copy(update={"max_pixels": 2 * 64 * 64 - 1})
    plain = encoded(film((64, 64)), "JPEG")
    assert read(image(plain, "image/jpeg"), spec=spec).arrays["image"]["pixels"].any()
    progressive = image(encoded(film((64, 64)), "JPEG", progressive=True), "image/jpeg")
    assert refused(progressive, spec=spec) == {("/images/0/data", "pixel_limit")}


@pytest.mark.parametrize(
    "media_type", ["IMAGE/PNG", "Image/Png", " image/png ", "image/png; charset=binary"]
)
def test_a_media_type_may_be_spelled_in_any_case(media_type):
    np.testing.assert_array_equal(
        pixels(image(encoded(film()), media_type)), pixels(image(encoded(film())))
    )


@pytest.mark.parametrize("media_type", ["IMAGE/JPEG", "image/jpg"])
def test_a_jpeg_may_be_called_jpg(media_type):
    assert pixels(image(encoded(film(), "JPEG"), media_type)).any()


def test_a_data_url_is_refused_with_its_reason():
    with pytest.raises(InvalidPayload) as caught:
        read(image("data:image/png;base64,iVBORw0KGgo="))
    (error,) = caught.value.errors
    assert (error.pointer, error.rule) == ("/images/0/data", "base64")
    assert "data: URL" in error.detail


# --- pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1", "P", "I;16"])
def test_an_image_of_any_mode_becomes_grey_pixels(mode):
    shown = film((300, 200))
    if mode == "I;16":
        shown = PIL.Image.fromarray(np.asarray(shown).astype(np.uint16) * 16)
    else:
        shown = shown.convert(mode)
    found = pixels(image(encoded(shown)))
    assert found.shape == (1, SPEC.image_side, SPEC.image_side)
    assert found.dtype == np.uint8
    assert found.std() > 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_film_of_8_bits_is_scaled_as_it_always_was(kind, mode):
    data = encoded(film((300, 200)).convert(mode), kind)
    grey = PIL.Image.open(io.BytesIO(data)).convert("L")
    expected = np.zeros((128, 128), np.uint8)
    expected[21 : 21 + 85] = np.asarray(grey.resize((128, 85), PIL.Image.Resampling.BILINEAR))
    found = pixels(image(data, f"image/{kind.lower()}"))
    np.testing.assert_array_equal(found[0], expected)


def test_a_cmyk_jpeg_is_converted_as_before():
    data = encoded(film((256, 256)).convert("RGB").convert("CMYK"), "JPEG")
    grey = PIL.Image.open(io.BytesIO(data)).convert("L")
    expected = np.asarray(grey.resize((128, 128), PIL.Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels(image(data, "image/jpeg"))[0], expected)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_film_is_turned_as_its_exif_orientation_says(kind, orientation):
    upright = film((260, 200))
    stored = upright
    if STORED[orientation] is not None:
        stored = upright.transpose(STORED[orientation])
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    data = encoded(stored, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    found = pixels(image(data, f"image/{kind.lower()}")).astype(int)
    expected = pixels(image(encoded(upright))).astype(int)
    assert np.abs(found - expected).max() <= (0 if kind == "PNG" else 3)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", bytes(40)])
def test_a_film_with_damaged_exif_is_read_as_it_is_stored(exif):
    data = encoded(film(), "JPEG", exif=exif)
    plain = encoded(film(), "JPEG")
    np.testing.assert_array_equal(
        pixels(image(data, "image/jpeg")), pixels(image(plain, "image/jpeg"))
    )


# --- 16 bits ----------------------------------------------------------------------------------


def deep(values):
    return encoded(values.astype(np.uint16))


def brightness(data):
    return pixels(image(data))[0].astype(float)


BASE = np.asarray(film((400, 400))).astype(np.int64)
SHOWN = brightness(encoded(film((400, 400))))
STRETCHED = (SHOWN - BASE.min()) / np.ptp(BASE) * 255
INSIDE = np.zeros((128, 128), bool)
INSIDE[30:98, 30:98] = True


@pytest.mark.parametrize(
    ("scale", "offset"), [(1, 0), (4, 0), (16, 0), (64, 0), (257, 0), (16, 1000), (16, 32768)]
)
def test_a_film_of_any_depth_is_stretched_from_its_darkest_to_its_brightest(scale, offset):
    found = brightness(deep(BASE * scale + offset))
    assert np.abs(found - STRETCHED).max() < 3  # of 255: three times rounded down


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
def test_markers_borders_and_dead_pixels_do_not_darken_a_film_of_16_bits(name):
    values = DEEP_FILMS[name]
    film_left = BASE[np.isin(values - TWELVE_BITS, (0, 3000, 20_000, 30_000))]
    expected = np.clip((SHOWN - film_left.min()) / np.ptp(film_left) * 255, 0, 255)
    assert np.abs(brightness(deep(values)) - expected)[INSIDE].mean() < 10  # of 255


def test_a_film_of_16_bits_in_colour_channels_is_stretched_too():
    """Pillow keeps the high byte of each channel: 12 bits there are almost black."""
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
def test_a_window_lies_within_the_values(counts):
    histogram = np.zeros(1 << 16, np.int64)
    for value, count in counts.items():
        histogram[value] = count
    low, high = window(histogram)
    assert min(counts) <= low <= high <= max(counts)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["L", "RGB", "RGBA", "LA", "P", "1", "I;16"]),
    st.integers(0, 2**32 - 1),
)
def test_an_image_of_any_size_and_mode_is_read(width, height, mode, seed):
    draw = np.random.default_rng(seed)
    if mode == "I;16":
        shown = PIL.Image.fromarray(draw.integers(0, 1 << 16, (height, width)).astype(np.uint16))
    else:
        grey = PIL.Image.fromarray(draw.integers(0, 256, (height, width)).astype(np.uint8))
        shown = grey.convert(mode)
    found = read(image(encoded(shown)))
    assert found.arrays["image"]["pixels"].shape == (1, 128, 128)
    assert found.receipt.modalities["image"].unusual == 1.0


def test_every_film_of_a_permutation_of_three_is_the_same():
    films = [image(encoded(film((s, s), seed=s))) for s in (100, 120, 140)]
    chosen = [pixels(*order) for order in itertools.permutations(films)]
    assert all(np.array_equal(one, chosen[0]) for one in chosen)
