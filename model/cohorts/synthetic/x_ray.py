"""Drawn chest X-rays."""

import io

import numpy as np
import numpy.typing as npt
import PIL.Image

Floats = npt.NDArray[np.float64]


def chest_xray(
    signs: set[str], draw: np.random.Generator, side: int = 128, grain: float = 0.05
) -> bytes:
    """A PNG of a chest with the given X_RAY_SIGNS: drawn shapes, not anatomy."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] + 0.04 * draw.normal(size=(2, 1, 1))
    across = np.abs(x) - 0.42
    worse = np.sign(x) == draw.choice((-1, 1))
    wide = "emphysema" in signs
    floor = (0.62 if wide else 0.4) + (1 if wide else 2) * across**2
    if "effusion" in signs:
        floor = np.where(worse, 0.1 - 0.5 * across, floor)
    lung = _disc(across, y + 0.05, 0.36, 0.8) / (1 + np.exp(30 * (y - floor)))
    ribs = np.cos(17 * (y - 0.5 * across - across**2)) ** 4
    grey = 0.75 * _disc(x, y - 0.3, 1, 1.4) - lung * ((0.56 if wide else 0.42) - 0.1 * ribs)
    grey = np.maximum(grey, 0.8 * np.exp(-((x / 0.1) ** 2)))
    if "haze" in signs:
        grey += 0.22 * lung * np.exp(-(((across + 0.2) / 0.2) ** 2))
    if "cloud" in signs:
        far = np.hypot(across, y - draw.uniform(-0.4, 0.2))
        grey += 0.4 * lung * worse * np.exp(-((far / 0.25) ** 2))
    heart = _disc(x - 0.1, y - 0.25, 0.45 if "large_heart" in signs else 0.3, 0.4)
    grey = np.maximum(grey, 0.82 * heart) * draw.uniform(0.85, 1.1)
    grey += grain * draw.normal(size=grey.shape)
    # Thirty-two grey levels keep the file small.
    pixels = (np.clip(grey, 0, 1) * 31).astype(np.uint8) * 8
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _disc(x: Floats, y: Floats, rx: float, ry: float) -> Floats:
    """1 inside an ellipse around the origin, 0 outside, with a soft edge."""
    disc: Floats = 1 / (1 + np.exp(14 * (np.hypot(x / rx, y / ry) - 1)))
    return disc
