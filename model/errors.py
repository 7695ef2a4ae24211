"""Errors that a user can mend, and the one line that a command prints of them. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

# Faults of one file that are told; more would hide the first.
_TOLD = 3
_LONGEST = 300  # characters


class UserError(ValueError):
    """A fault that the user can mend. Its text is one line that names the file or the option."""


@contextmanager
def naming(
    path: Path,
    raised: type[UserError],
    caught: type[Exception] | tuple[type[Exception], ...] = OSError,
) -> Iterator[None]:
    """Raises an error of the type `raised` that names the file, if one of `caught` is raised."""
    try:
        yield
    except raised:
        raise
    except caught as error:
        raise raised(f"{path}: {reason_of(error)}") from None


def line_of(error: BaseException) -> str | None:
    """The line for a user, or None if the error is a fault of this program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return reason_of(error) if error.filename is None else f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed; install m3h with the extra 'train'"
    return None


def reason_of(error: BaseException) -> str:
    """The fault alone, in one line, without the values that pydantic and others quote."""
    if isinstance(error, ValidationError):
        return _faults(error)
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False)
    told = [
        f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"
        for fault in faults[:_TOLD]
    ]
    more = len(faults) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")
