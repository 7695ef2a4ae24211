"""Selection of the image that the model reads, and refusal of invalid images."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.features import extract_features, select_image
from schemas.features.images.decoding import MAX_SIDE
from schemas.payload import InvalidPayload, as_payload
from tests.support.inputs.chest_xrays import black_png, encoded, xray
from tests.support.inputs.feature_requests import AS_OF, SPEC, ignored
from tests.support.inputs.image_requests import extract_images, image, image_errors, pixels


def test_the_latest_image_is_read_and_the_others_are_reported():
    early, late = encoded(xray(seed=1)), encoded(xray(seed=2))
    features = extract_images(image(late, hours_before=1), image(early, hours_before=9))
    np.testing.assert_array_equal(features.arrays["image"]["pixels"], pixels(image(late)))
    assert ignored(features) == {("/images/1", "not_the_latest_image")}


@pytest.mark.parametrize("view", ["LATERAL", "LL", "lat", "left lateral", "LAO", "AP LLD"])
def test_an_image_of_another_view_never_replaces_a_frontal_one(view):
    frontal = image(encoded(xray(seed=1)), hours_before=2, view="PA")
    features = extract_images(frontal, image(encoded(xray(seed=2)), hours_before=1, view=view))
    np.testing.assert_array_equal(features.arrays["image"]["pixels"], pixels(frontal))
    assert ignored(features) == {("/images/1", "view_not_read")}


def test_without_a_frontal_image_none_is_read_and_a_warning_is_given():
    features = extract_images(image(encoded(xray()), view="LATERAL"), tabular={"age": 70})
    assert "image" not in features.arrays
    assert features.receipt.modalities["image"].status == "absent"
    assert ignored(features) == {("/images/0", "view_not_read")}
    assert features.receipt.warnings == ("no chest X-ray is read: none has a frontal view",)


def test_an_image_of_an_unknown_view_is_read_and_reported():
    features = extract_images(image(encoded(xray()), view="PA and lateral"))
    np.testing.assert_array_equal(
        features.arrays["image"]["pixels"], pixels(image(encoded(xray())))
    )
    assert ignored(features) == {("/images/0/view", "unknown_category")}
    assert ignored(extract_images(image(encoded(xray()), view="?"))) == set()


def test_a_spec_with_lateral_views_reads_lateral_images():
    spec = SPEC.model_copy(update={"views": ("frontal", "lateral")})
    features = extract_images(image(encoded(xray()), view="LATERAL"), spec=spec)
    assert features.arrays["image"]["pixels"].any()
    assert ignored(features) == set()


@pytest.mark.parametrize(
    "views", [("PA", "AP"), ("AP", "frontal"), ("frontal", None), (None, None)]
)
def test_the_selection_among_images_of_one_time_ignores_their_order(views):
    better = image(encoded(xray((300, 300), seed=1)), view=views[0])
    other = image(encoded(xray((256, 256), seed=2)), view=views[1])
    for order, index in (((better, other), 1), ((other, better), 0)):
        features = extract_images(*order)
        np.testing.assert_array_equal(features.arrays["image"]["pixels"], pixels(better))
        assert ignored(features) == {(f"/images/{index}", "not_the_latest_image")}
        assert f"/images/{1 - index}" in features.receipt.ignored[0].detail


def test_times_in_different_zones_are_compared_as_moments():
    late = image(encoded(xray(seed=1))) | {"time": "2026-11-23T10:30:00+02:00"}
    early = image(encoded(xray(seed=2))) | {"time": "2026-11-23T08:00:00Z"}
    assert select_image(as_payload({"as_of": AS_OF, "images": [late, early]}), SPEC) == 0


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_order_of_images_has_no_influence(data):
    drawn = st.tuples(
        st.sampled_from([0.5, 1.0, 2.0]),
        st.sampled_from([None, "PA", "AP", "LATERAL", "XYZ", "LAO"]),
        st.integers(0, 3),
    )
    files = [encoded(xray((64 + 8 * seed, 64), seed=seed)) for seed in range(4)]
    images = [
        image(files[file], hours_before=hours, view=view)
        for hours, view, file in data.draw(st.lists(drawn, min_size=1, max_size=5))
    ]
    shuffled = images[:]
    random.Random(data.draw(st.integers())).shuffle(shuffled)
    ordered, reordered = (
        extract_images(*images, tabular={"age": 1}),
        extract_images(*shuffled, tabular={"age": 1}),
    )
    assert ordered.receipt.modalities == reordered.receipt.modalities
    assert ordered.receipt.warnings == reordered.receipt.warnings
    for name, array in ordered.arrays.get("image", {}).items():
        np.testing.assert_array_equal(array, reordered.arrays["image"][name])


def test_an_image_of_another_kind_is_ignored():
    features = extract_images(image(encoded(xray()), kind="photograph"), tabular={"age": 5})
    assert "image" not in features.arrays
    assert ignored(features) == {("/images/0/kind", "unknown_category")}


def test_a_cached_image_has_the_same_receipt():
    images = [image(encoded(xray()), view="XYZ"), image(encoded(xray()), hours_before=3)]
    payload = as_payload({"as_of": AS_OF, "images": images})
    known = extract_features(payload, SPEC, known={"image"})
    assert known.arrays == {"image": {}}
    assert known.receipt == extract_features(payload, SPEC).receipt


@pytest.mark.parametrize(
    ("data", "media_type", "rule"),
    [
        (b"no image at all", "image/png", "image"),
        (b"", "image/png", "image"),
        (encoded(xray())[:3000], "image/png", "image"),
        (encoded(xray(), "JPEG")[:3000], "image/jpeg", "image"),
        (encoded(xray()), "image/jpeg", "media_type"),
        (encoded(xray(), "JPEG"), "image/png", "media_type"),
        (encoded(xray(), "GIF"), "image/png", "image"),
        (black_png(40_000, 2), "image/png", None),
        (black_png(MAX_SIDE + 1, 1), "image/png", "pixel_limit"),
        (black_png(1, MAX_SIDE + 1, 16), "image/png", "pixel_limit"),
        (black_png(6325, 6325, 1), "image/png", "pixel_limit"),
    ],
)
def test_an_invalid_image_is_refused(data, media_type, rule):
    if rule is None:
        assert extract_images(image(data, media_type)).receipt.modalities["image"].unusual == 1.0
    else:
        assert image_errors(image(data, media_type)) == {("/images/0/data", rule)}


@pytest.mark.parametrize("broken", [b"broken", encoded(xray())[:2000]])
def test_a_broken_image_is_never_replaced_by_an_older_one(broken):
    older = image(encoded(xray()), hours_before=9)
    assert image_errors(older, image(broken)) == {("/images/1/data", "image")}


@pytest.mark.parametrize("view", [None, "LATERAL"])
def test_an_invalid_image_is_refused_even_if_another_is_selected(view):
    other = image(b"broken", hours_before=9, view=view)
    assert image_errors(other, image(encoded(xray()))) == {("/images/0/data", "image")}


def test_only_the_selected_image_is_decoded():
    size = 64 * 64
    spec = SPEC.model_copy(update={"max_pixels": size})
    latest = image(encoded(xray((64, 64))))
    others = [
        image(encoded(xray((500, 500))), hours_before=9),
        image(encoded(xray())[:2000], hours_before=8),
        image(encoded(xray((500, 500))), view="LATERAL"),
    ]
    features = extract_images(*others, latest, spec=spec)
    np.testing.assert_array_equal(features.arrays["image"]["pixels"], pixels(latest))
    assert len(features.receipt.ignored) == 3
    too_small = spec.model_copy(update={"max_pixels": size - 1})
    assert image_errors(latest, spec=too_small) == {("/images/0/data", "pixel_limit")}


def test_four_large_images_are_accepted():
    xrays = [image(black_png(3500, 3000), hours_before=hours) for hours in (1, 2, 3, 4)]
    assert len(extract_images(*xrays).receipt.ignored) == 3


def test_the_pixels_of_a_progressive_jpeg_count_twice():
    spec = SPEC.model_copy(update={"max_pixels": 2 * 64 * 64 - 1})
    plain = encoded(xray((64, 64)), "JPEG")
    assert extract_images(image(plain, "image/jpeg"), spec=spec).arrays["image"]["pixels"].any()
    progressive = image(encoded(xray((64, 64)), "JPEG", progressive=True), "image/jpeg")
    assert image_errors(progressive, spec=spec) == {("/images/0/data", "pixel_limit")}


@pytest.mark.parametrize(
    "media_type", ["IMAGE/PNG", "Image/Png", " image/png ", "image/png; charset=binary"]
)
def test_media_types_are_case_insensitive(media_type):
    np.testing.assert_array_equal(
        pixels(image(encoded(xray()), media_type)), pixels(image(encoded(xray())))
    )


@pytest.mark.parametrize("media_type", ["IMAGE/JPEG", "image/jpg"])
def test_image_jpg_is_accepted_as_jpeg(media_type):
    assert pixels(image(encoded(xray(), "JPEG"), media_type)).any()


def test_a_data_url_is_refused_with_the_reason():
    with pytest.raises(InvalidPayload) as caught:
        extract_images(image("data:image/png;base64,iVBORw0KGgo="))
    (error,) = caught.value.errors
    assert (error.pointer, error.rule) == ("/images/0/data", "base64")
    assert "data: URL" in error.detail
