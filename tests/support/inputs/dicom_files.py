"""DICOM files for tests, written with pydicom, of a patient who must not appear anywhere."""

import base64
import io
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom.encaps
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from tests.support.inputs.chest_xrays import xray

PATIENT = "Quillfeather"  # in each file, as name, number, institution and private element
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
BASELINE, EXTENDED = f"{_JPEG}50", f"{_JPEG}51"
LOSSLESS, LOSSLESS_SV1 = f"{_JPEG}57", f"{_JPEG}70"
JPEG_LS, NEAR_LOSSLESS = f"{_JPEG}80", f"{_JPEG}81"
J2K_LOSSLESS, J2K = f"{_JPEG}90", f"{_JPEG}91"
NATIVE_SYNTAXES = {IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED}
# Names in the identifiers of tests.
SYNTAXES = {
    "implicit": IMPLICIT,
    "explicit": EXPLICIT,
    "big endian": BIG_ENDIAN,
    "deflated": DEFLATED,
    "RLE": RLE,
    "JPEG baseline": BASELINE,
    "JPEG extended": EXTENDED,
    "JPEG lossless": LOSSLESS,
    "JPEG lossless SV1": LOSSLESS_SV1,
    "JPEG-LS": JPEG_LS,
    "JPEG-LS near lossless": NEAR_LOSSLESS,
    "JPEG 2000 lossless": J2K_LOSSLESS,
    "JPEG 2000": J2K,
}
LOSSY = {BASELINE, EXTENDED, NEAR_LOSSLESS, J2K}
CR = "1.2.840.10008.5.1.4.1.1.1"


def dicom(
    pixels: npt.NDArray[Any] | None = None,
    syntax: str = EXPLICIT,
    bits: int | None = None,
    frame: bytes | None = None,
    **tags: Any,
) -> bytes:
    """A chest film with the given stored values. `frame`: its compressed form.

    `bits`: bits stored. `tags`: elements by keyword; None leaves one out.
    """
    pixels = np.asarray(xray()) if pixels is None else pixels
    bits = bits or 8 * pixels.dtype.itemsize
    dataset = Dataset()
    dataset.update(_defaults(pixels, bits))
    for keyword, value in tags.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    block = dataset.private_block(0x0011, PATIENT, create=True)
    block.add_new(0x01, "LO", PATIENT)
    if syntax in NATIVE_SYNTAXES:
        order = ">" if syntax == BIG_ENDIAN else "<"
        raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        dataset.add_new("PixelData", "OW" if pixels.dtype.itemsize == 2 else "OB", raw)
        if len(raw) % 2:
            dataset.PixelData += b"\0"
    else:
        frame = compressed(pixels, syntax, bits) if frame is None else frame
        dataset.PixelData = pydicom.encaps.encapsulate([frame])
        dataset["PixelData"].VR = "OB"
    return _written(dataset, syntax)


def _defaults(pixels: npt.NDArray[Any], bits: int) -> Dataset:
    defaults = Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": CR,
        "SOPInstanceUID": "1.2.3",
        "Modality": "CR",
        "PatientName": f"{PATIENT}^Ada",
        "PatientID": PATIENT,
        "InstitutionName": PATIENT,
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "AcquisitionDate": "20310504",
        "AcquisitionTime": "110000",
        "TimezoneOffsetFromUTC": "+0000",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    for keyword, value in values.items():
        setattr(defaults, keyword, value)
    return defaults


def _written(dataset: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(CR)
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta = meta
    file = io.BytesIO()
    dcmwrite(
        file,
        dataset,
        enforce_file_format=True,
        implicit_vr=syntax == IMPLICIT,
        little_endian=syntax != BIG_ENDIAN,
    )
    return file.getvalue()


def compressed(pixels: npt.NDArray[Any], syntax: str, bits: int) -> bytes:
    """One frame in an encapsulated transfer syntax; signed values as their two's complement."""
    unsigned = pixels.view(f"u{pixels.dtype.itemsize}") & ((1 << bits) - 1)
    unsigned = unsigned.astype(np.uint8 if bits == 8 else np.uint16)
    if syntax == RLE:
        return run_lengths(pixels)
    if syntax in (BASELINE, EXTENDED):
        return bytes(imagecodecs.jpeg8_encode(unsigned, level=95, bitspersample=bits))
    if syntax in (LOSSLESS, LOSSLESS_SV1):
        predictor = 1 if syntax == LOSSLESS_SV1 else 6
        return bytes(
            imagecodecs.jpeg8_encode(
                unsigned, lossless=True, predictor=predictor, bitspersample=bits
            )
        )
    if syntax in (JPEG_LS, NEAR_LOSSLESS):
        level = 0 if syntax == JPEG_LS else 2
        return bytes(imagecodecs.jpegls_encode(unsigned, level=level))
    return bytes(
        imagecodecs.jpeg2k_encode(
            unsigned,
            level=0 if syntax == J2K_LOSSLESS else 50,
            codecformat="J2K",
            bitspersample=bits,
            reversible=syntax == J2K_LOSSLESS,
        )
    )


def run_lengths(pixels: npt.NDArray[Any]) -> bytes:
    """RLE with literal runs only (PS3.5, annex G)."""
    size = pixels.dtype.itemsize
    planes = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(-1).view(np.uint8)
    segments = []
    for plane in planes.reshape(-1, size).T:
        raw = plane.tobytes()
        runs = (raw[at : at + 128] for at in range(0, len(raw), 128))
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = np.cumsum([64] + [len(segment) for segment in segments[:-1]]).tolist()
    header = struct.pack("<16I", size, *offsets, *[0] * (15 - size))
    return header + b"".join(segments)


def deflated_bomb(header: bytes, megabytes: int) -> bytes:
    """A deflated file whose data set continues with zeros. `header`: an explicit file."""
    start = _data_set(header)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(header[start:])
    body += b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes))
    deflated = dicom(np.zeros((8, 8), np.uint8), DEFLATED)
    return deflated[: _data_set(deflated)] + body + packer.flush()


def _data_set(file: bytes) -> int:
    """The offset of the data set, after the file meta information."""
    return 144 + int(struct.unpack_from("<I", file, 140)[0])


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
