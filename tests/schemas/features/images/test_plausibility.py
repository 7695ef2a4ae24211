"""Plausibility checks reject other pictures and accept frontal chest X-rays."""

import functools
import io

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import PIL.ImageFont
import PIL.ImageOps
import pytest

from model.cohorts.synthetic import chest_xray
from schemas.features.images.decoding import decode
from schemas.features.images.plausibility import check_chest_xray
from tests.support.inputs.chest_xrays import encoded, xray

SIDE = 256
Y, X = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]


def mismatch(data, media_type="image/png"):
    return check_chest_xray(decode(data, media_type, 128, 40_000_000), frontal=True)


def grey(values):
    return PIL.Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def ellipse(x, y, across, down):
    return np.hypot((X - x) / across, (Y - y) / down) < 1


def page(dark):
    shown = PIL.Image.new("L", (850, 1100), 255)
    pen, font = PIL.ImageDraw.Draw(shown), PIL.ImageFont.load_default(size=20)
    for line in range(40):
        pen.text((60, 40 + 26 * line), "discharge summary of a patient " * 3, fill=0, font=font)
    return PIL.ImageOps.invert(shown) if dark else shown


def ecg(colour):
    shown = PIL.Image.new("RGB", (1200, 800), (255, 240, 240) if colour else (255, 255, 255))
    pen = PIL.ImageDraw.Draw(shown)
    for at in range(0, 1200, 20):
        pen.line((at, 0, at, 800), fill=(255, 180, 180) if colour else (225, 225, 225))
        pen.line((0, at, 1200, at), fill=(255, 180, 180) if colour else (225, 225, 225))
    along = np.arange(1200)
    beat = np.exp(-(((along % 150) / 150 - 0.4) ** 2) / 4e-4)
    for row in range(4):
        height = 200 * row + 120 - 90 * beat
        pen.line(list(zip(along.tolist(), height.tolist(), strict=True)), fill=(0, 0, 0), width=2)
    return shown


def ct_slice():
    body = np.where(ellipse(0, 0, 0.9, 0.65), 150, 0)
    body[ellipse(-0.42, 0, 0.3, 0.42) | ellipse(0.42, 0, 0.3, 0.42)] = 30
    body[ellipse(0, 0.45, 0.1, 0.1)] = 230
    return grey(body + np.random.default_rng(0).normal(0, 6, body.shape))


def hand():
    shown = PIL.Image.new("L", (400, 520), 8)
    pen = PIL.ImageDraw.Draw(shown)
    pen.ellipse((110, 260, 300, 470), fill=90)
    for foot, tip, top in ((95, 40, 200), (150, 125, 70), (200, 200, 40), (250, 270, 70)):
        pen.line((foot, 330, tip, top), fill=95, width=42)
        pen.line((foot, 330, tip, top), fill=200, width=16)
    return shown.filter(PIL.ImageFilter.GaussianBlur(2))


def photograph():
    draw = np.random.default_rng(5)
    coarse = draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    fine = np.asarray(
        PIL.Image.fromarray(coarse).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC)
    )
    return PIL.Image.fromarray(
        np.clip(fine + draw.normal(0, 8, fine.shape), 0, 255).astype(np.uint8)
    )


def noise(kind):
    draw = np.random.default_rng(1)
    values = {
        "uniform": lambda: draw.integers(0, 256, (SIDE, SIDE)),
        "gaussian": lambda: draw.normal(128, 50, (SIDE, SIDE)),
        "faint": lambda: draw.normal(128, 10, (SIDE, SIDE)),
        "salt and pepper": lambda: (draw.random((SIDE, SIDE)) < 0.5) * 255,
        "sparse": lambda: (draw.random((SIDE, SIDE)) < 0.02) * 255,
        "large": lambda: draw.integers(0, 256, (1024, 1024)),
    }
    return grey(values[kind]())


OTHERS = {
    "one pixel": lambda: PIL.Image.new("L", (1, 1), 128),
    "icon": lambda: xray((32, 32)),
    "strip": lambda: xray((900, 120)),
    "black": lambda: PIL.Image.new("L", (512, 512), 0),
    "grey": lambda: PIL.Image.new("L", (512, 512), 60),
    "white": lambda: PIL.Image.new("L", (512, 512), 255),
    "gradient": lambda: grey(127 + 127 * X),
    "upward gradient": lambda: grey(127 + 127 * Y),
    "disc": lambda: grey(255 * ellipse(0, 0, 0.6, 0.6)),
    "stripes": lambda: grey(127 + 127 * np.sin(30 * X)),
    "page": lambda: page(dark=False),
    "dark page": lambda: page(dark=True),
    "ECG": lambda: ecg(colour=False),
    "ECG on paper": lambda: ecg(colour=True),
    "slice": ct_slice,
    "hand": hand,
    "photograph": photograph,
    "grey photograph": lambda: photograph().convert("L"),
    "inverted": lambda: PIL.ImageOps.invert(xray()),
    "on its side": lambda: xray().transpose(PIL.Image.Transpose.ROTATE_90),
    "upside down": lambda: xray().transpose(PIL.Image.Transpose.ROTATE_180),
}


@pytest.mark.parametrize("name", OTHERS)
def test_pictures_of_other_things_are_rejected(name):
    assert mismatch(encoded(OTHERS[name]())) is not None


@pytest.mark.parametrize(
    "kind", ["uniform", "gaussian", "faint", "salt and pepper", "sparse", "large"]
)
def test_noise_is_rejected(kind):
    assert mismatch(encoded(noise(kind))) is not None


def test_90_percent_of_blurred_noise_is_rejected():
    draw = np.random.default_rng(2)
    reasons = [
        mismatch(
            encoded(
                PIL.ImageOps.autocontrast(
                    grey(draw.integers(0, 256, (SIDE, SIDE))).filter(
                        PIL.ImageFilter.GaussianBlur(draw.uniform(0.5, 20))
                    )
                )
            )
        )
        for _ in range(100)
    ]
    assert sum(reason is not None for reason in reasons) >= 90


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("one pixel", "64 pixels"),
        ("strip", "2.5 times"),
        ("photograph", "coloured"),
        ("black", "one grey"),
        ("inverted", "inverted"),
        ("slice", "corners"),
        ("on its side", "upright frontal chest"),
    ],
)
def test_a_rejection_names_the_reason(name, reason):
    assert reason in mismatch(encoded(OTHERS[name]()))


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (300, 256), (1000, 1200)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_chest_xray_of_any_size_is_accepted(size, kind):
    assert mismatch(encoded(xray(size), kind), f"image/{kind.lower()}") is None


@pytest.mark.parametrize("signs", [set(), {"effusion"}, {"emphysema"}, {"cloud", "large_heart"}])
def test_synthetic_chest_xrays_are_accepted(signs):
    draw = np.random.default_rng(3)
    assert [mismatch(chest_xray(signs, draw)) for _ in range(10)] == [None] * 10


def test_a_model_that_reads_lateral_views_skips_the_frontal_check():
    turned = xray().transpose(PIL.Image.Transpose.ROTATE_90)
    picture = decode(encoded(turned), "image/png", 128, 40_000_000)
    assert check_chest_xray(picture, frontal=False) is None


@functools.cache
def real_xrays(folder):
    return sorted((*folder.rglob("*.jpg"), *folder.rglob("*.png")))


def test_at_most_1_in_200_real_xrays_is_rejected(open_data):
    files = real_xrays(open_data("nih-cxr") / "nih-cxr")
    reasons = [mismatch(file.read_bytes(), "image/jpeg") for file in files]
    assert len(files) > 900
    assert sum(reason is not None for reason in reasons) <= 0.005 * len(files)


def test_xrays_of_other_hospitals_are_rarely_rejected(open_data):
    folder = open_data("covid-chestxray") / "covid-chestxray"
    reasons = [mismatch(file.read_bytes(), "image/jpeg") for file in real_xrays(folder)]
    assert sum(reason is not None for reason in reasons) <= 0.02 * len(reasons)


def test_inverted_and_rotated_xrays_are_rejected(open_data):
    files = real_xrays(open_data("nih-cxr") / "nih-cxr")[::20]
    for change in (
        PIL.ImageOps.invert,
        functools.partial(PIL.Image.Image.transpose, method=PIL.Image.Transpose.ROTATE_90),
        functools.partial(PIL.Image.Image.transpose, method=PIL.Image.Transpose.ROTATE_180),
        functools.partial(PIL.Image.Image.transpose, method=PIL.Image.Transpose.ROTATE_270),
    ):
        rejected = []
        for file in files:
            picture = PIL.Image.open(io.BytesIO(file.read_bytes())).convert("L")
            changed = encoded(change(picture.resize((SIDE, SIDE))), "JPEG")
            rejected.append(mismatch(changed, "image/jpeg") is not None)
        assert sum(rejected) >= 0.9 * len(rejected)
