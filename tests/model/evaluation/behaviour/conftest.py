"""The shared questions beside the repository, where present."""

import importlib
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[5] / "shared" / "behaviour"


@pytest.fixture(scope="session")
def ask():
    """The module `ask.py`, an independent implementation of the same judgement."""
    if not (SHARED / "ask.py").is_file():
        pytest.skip(f"requires ask.py in {SHARED}")
    sys.path.insert(0, str(SHARED))
    try:
        yield importlib.import_module("ask")
    finally:
        sys.path.remove(str(SHARED))
