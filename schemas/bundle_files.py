"""Safe reading of bundle files.

Size limits and file type checks keep a hostile file from blocking or exhausting the process.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

# Size limits, far above the size of a real bundle. Larger files are refused.
MANIFEST_BYTES = 32 * 2**20
TOKENIZER_BYTES = 64 * 2**20
DOCUMENT_BYTES = 256 * 2**20
FILE_BYTES = 2**31  # the limit of ONNX (protobuf)
MAX_FILES = 1000

# Characters of one part of an error message, and of the whole message.
_MAX_PART, _MAX_MESSAGE = 500, 1_000


class BundleError(ValueError):
    """A bundle is invalid. The message names the file and the fault, on one line.

    The length of the message is bounded, because it holds names and paths of the bundle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(single_line(message, _MAX_MESSAGE))


def read_file(path: Path, limit: int) -> bytes:
    """Returns the content of a file.

    Raises BundleError: the file cannot be read, is not a regular file, or exceeds `limit` bytes.
    """
    with _open_regular_file(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise BundleError(f"{_printable(path)} is larger than {limit} bytes")
    return content


def read_verified(bundle: Path, name: str, files: Mapping[str, str], limit: int) -> bytes:
    """Returns the content of a bundle file, verified against its SHA-256 in `files`.

    The file is read once, so the returned bytes are the verified bytes even if the file changes.

    Raises BundleError: `read_file` fails, or the digest differs.
    """
    content = read_file(bundle / name, limit)
    if sha256(content) != files.get(name):
        raise BundleError(_digest_mismatch(bundle / name))
    return content


def verify_file(bundle: Path, name: str, expected: object) -> None:
    """Checks that a file lies inside the bundle and has the `expected` SHA-256.

    Raises BundleError: it does not.
    """
    path = bundle / name
    try:
        inside = path.resolve().is_relative_to(bundle.resolve())
    except (OSError, RuntimeError, ValueError):  # a link loop or an invalid file name
        raise BundleError(f"{_printable(path)} cannot be read") from None
    if not inside:
        raise BundleError(f"{_printable(Path(name))!r} lies outside the bundle")
    with _open_regular_file(path, FILE_BYTES) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise BundleError(_digest_mismatch(path))


@contextmanager
def _open_regular_file(path: Path, limit: int) -> Iterator[BufferedReader]:
    """Opens a regular file of at most `limit` bytes.

    The file type is checked before the file is opened: opening a pipe or a device can block
    forever. Raises BundleError: the file is unsuitable, or an error occurs inside the context.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{_printable(path)} is not a file")
        if status.st_size > limit:
            raise BundleError(f"{_printable(path)} is larger than {limit} bytes")
        with open(path, "rb", opener=_open_nonblocking) as file:
            yield file
    except FileNotFoundError:
        raise BundleError(f"{_printable(path)} is missing") from None
    except OSError as error:
        raise BundleError(f"{_printable(path)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{_printable(path)} cannot be read: the file name is invalid") from None


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _digest_mismatch(path: Path) -> str:
    return f"{_printable(path)} was changed: its SHA-256 differs from the manifest"


def _printable(path: Path) -> str:
    return single_line(str(path))


def single_line(text: str, max_length: int = _MAX_PART) -> str:
    """Returns the text as one printable line of at most `max_length` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


def sha256(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
