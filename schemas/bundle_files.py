"""The files of a bundle, read so that none can keep, fill or end the process that reads it."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

# What a bundle may be, far beyond what one is: nothing larger is read.
MANIFEST_BYTES = 32 * 2**20
TOKENIZER_BYTES = 64 * 2**20
DOCUMENT_BYTES = 256 * 2**20
FILE_BYTES = 2**31  # as ONNX has it
MOST_FILES = 1000

_LINE, _LONGEST = 500, 1_000  # characters of a part of a fault, and of a fault


class BundleError(ValueError):
    """A bundle that cannot be trusted: what is wrong with it, and where, in one line.

    The line is bounded, because a bundle's own names and paths are part of it.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(one_line(fault, _LONGEST))


def read_file(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes. Raises BundleError for anything else."""
    with _opened(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise BundleError(f"{_shown(path)} is larger than {limit} bytes")
    return content


def read_verified(bundle: Path, name: str, files: Mapping[str, str], limit: int) -> bytes:
    """A file of a bundle, as its digest in `files` says. Raises BundleError.

    What is used is what was verified: a file may change from one reading to the next.
    """
    content = read_file(bundle / name, limit)
    if sha256(content) != files.get(name):
        raise BundleError(_changed(bundle / name))
    return content


def verify(bundle: Path, name: str, expected: object) -> None:
    """Raises BundleError for a file that is not in the bundle, or has another digest."""
    path = bundle / name
    try:
        inside = path.resolve().is_relative_to(bundle.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
        raise BundleError(f"{_shown(path)} cannot be read") from None
    if not inside:
        raise BundleError(f"{_shown(Path(name))!r} lies outside the bundle")
    with _opened(path, FILE_BYTES) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise BundleError(_changed(path))


@contextmanager
def _opened(path: Path, limit: int) -> Iterator[BufferedReader]:
    """A file that is looked at before it is opened: opening a pipe or a device may wait for ever.

    Raises BundleError, also for what goes wrong while it is read.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BundleError(f"{_shown(path)} is not a file")
        if facts.st_size > limit:
            raise BundleError(f"{_shown(path)} is larger than {limit} bytes")
        with open(path, "rb", opener=_without_waiting) as file:
            yield file
    except FileNotFoundError:
        raise BundleError(f"{_shown(path)} is missing") from None
    except OSError as error:
        raise BundleError(f"{_shown(path)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{_shown(path)} cannot be read: no file has such a name") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _changed(path: Path) -> str:
    return f"{_shown(path)} was changed: its SHA-256 is not the manifest's"


def _shown(path: Path) -> str:
    return one_line(str(path))


def one_line(text: str, longest: int = _LINE) -> str:
    """A text as one line of at most `longest` characters, for a log or an answer."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
