"""Peak memory of image decoding, measured in a separate process."""

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from tests.support.inputs.chest_xrays import black_png, encoded
from tests.support.inputs.dicom_files import DEFLATED, J2K_LOSSLESS, dicom

# Prints the outcome and the growth of the peak memory in megabytes.
READ = """
import sys
from datetime import UTC, datetime
from schemas.features import FeatureSpec, extract_features
from schemas.payload import InvalidPayload, as_payload

def kilobytes(name):
    with open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith(name)).split()[1])

time, spec = datetime(2026, 1, 1, tzinfo=UTC), FeatureSpec.default()
image = {"time": time, "media_type": sys.argv[1], "data": sys.stdin.buffer.read()}
payload = as_payload({"as_of": time, "images": [image]})
before = kilobytes("VmRSS")
try:
    extract_features(payload, spec)
    rule = "read"
except InvalidPayload as error:
    rule = error.errors[0].rule
print(rule, (kilobytes("VmHWM") - before) // 1024)
"""
LIMIT = 260  # megabytes


def jpeg(mode):
    tiled = np.tile(np.random.default_rng(0).integers(0, 256, (64, 64)), (98, 98))
    grey = PIL.Image.fromarray(tiled.astype(np.uint8))
    return encoded(grey.convert("RGB").convert(mode), "JPEG")


def film(syntax, bits, shape):
    """A DICOM file of large runs, so that it is compressed quickly."""
    kind = np.uint8 if bits == 8 else np.uint16
    return dicom(np.tile(np.arange(200, dtype=kind), (shape[0], shape[1] // 200)), syntax, bits)


CASES = {
    "16 bits, 6000 x 6000": (lambda: black_png(6000, 6000, 16), "read"),
    "16 bits, 610 x 65535": (lambda: black_png(610, 65_535, 16), "read"),
    "16 bits, 1 x 40 million": (lambda: black_png(1, 40_000_000, 16), "pixel_limit"),
    "16 bits, 40 million x 1": (lambda: black_png(40_000_000, 1, 16), "pixel_limit"),
    "16 bits, colours and alpha": (lambda: black_png(6300, 6300, 16, 6), "read"),
    "colours": (lambda: black_png(6300, 6300, 8, 2), "read"),
    "CMYK": (lambda: jpeg("CMYK"), "read"),
    "colours, JPEG": (lambda: jpeg("RGB"), "read"),
    "DICOM, 16 bits, deflated": (lambda: film(DEFLATED, 16, (6200, 6400)), "read"),
    "DICOM, JPEG 2000": (lambda: film(J2K_LOSSLESS, 16, (4400, 4400)), "read"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("name", CASES)
def test_decoding_takes_bounded_memory(name):
    make, rule = CASES[name]
    data = make()
    media_type = "image/png" if data[1:4] == b"PNG" else "image/jpeg"
    media_type = "application/dicom" if data[128:132] == b"DICM" else media_type
    done = subprocess.run(
        [sys.executable, "-c", READ, media_type], input=data, capture_output=True, check=True
    )
    outcome, megabytes = done.stdout.split()
    assert outcome.decode() == rule
    assert int(megabytes) < LIMIT
