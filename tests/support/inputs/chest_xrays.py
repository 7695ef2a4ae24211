"""Images for tests that look like frontal chest X-rays: their mean with noise."""

import io
import struct
import zlib
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image


def xray(size: tuple[int, int] = (256, 256), seed: int = 0) -> PIL.Image.Image:
    with files("schemas").joinpath("frontal_chest.png").open("rb") as file:
        mean = PIL.Image.open(file).resize(size, PIL.Image.Resampling.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, 4, (size[1], size[0]))
    return PIL.Image.fromarray(np.clip(np.asarray(mean) + grain, 0, 250).astype(np.uint8))


def encoded(image: PIL.Image.Image | npt.NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    if not isinstance(image, PIL.Image.Image):
        image = PIL.Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def black_png(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A black PNG, made without holding all pixels in memory."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(1)
    rows_at_once = max(1, (1 << 20) // len(row))
    whole, rest = divmod(height, rows_at_once)
    packed = [packer.compress(row * rows_at_once) for _ in range(whole)]
    packed += [packer.compress(row * rest), packer.flush()]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (
        png_chunk(b"IHDR", header),
        png_chunk(b"IDAT", b"".join(packed)),
        png_chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
