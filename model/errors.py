"""Errors that the user can fix, and their one-line messages. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

MAX_FAULTS = 3  # validation faults of one file in a message
MAX_LENGTH = 300  # characters of a message


class UserError(ValueError):
    """An error that the user can fix. Its text is one line that names the file or the option."""


class RunError(UserError):
    """A run that is impossible: cohorts that do not match, or a folder that holds another run."""


@contextmanager
def wrap_file_errors(
    path: Path,
    raised: type[UserError],
    caught: type[Exception] | tuple[type[Exception], ...] = OSError,
) -> Iterator[None]:
    """Turns errors of the types `caught` into an error of the type `raised` that names the file."""
    try:
        yield
    except raised:
        raise
    except caught as error:
        raise raised(f"{path}: {error_reason(error)}") from None


def user_message(error: BaseException) -> str | None:
    """The line to print for the user. None if the error is a defect of this program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        if error.filename is None:
            return error_reason(error)
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed; install m3h with the extra 'train'"
    return None


def error_reason(error: BaseException) -> str:
    """The reason of an error in one line, without the input values that pydantic quotes."""
    if isinstance(error, ValidationError):
        return _validation_faults(error)
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MAX_LENGTH else f"{text[:MAX_LENGTH]} …"


def _validation_faults(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False)
    texts = [
        f"{'.'.join(map(str, fault['loc'])) or 'the whole file'}: {fault['msg']}"
        for fault in faults[:MAX_FAULTS]
    ]
    rest = len(faults) - len(texts)
    return "; ".join(texts) + (f"; and {rest} more" if rest > 0 else "")
