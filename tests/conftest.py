"""What the rooms' tests share: the open data, or a skip that names the set that is not there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

OpenData = Callable[..., Path]

_BESIDE_THE_CHECKOUT = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def open_data() -> OpenData:
    """`open_data("nih-cxr")`: the data folder, once each named set is known to be in it.

    The folder is what `M3H_DATA` names, else `../shared/data` beside the checkout. A test whose
    set is not there is skipped by the set's name.
    """
    data = Path(os.environ.get("M3H_DATA") or _BESIDE_THE_CHECKOUT)

    def folder_with(*sets: str) -> Path:
        missing = [name for name in sets if not (data / name).is_dir()]
        if missing:
            pytest.skip(f"open data not there: {', '.join(missing)} (sought in {data})")
        return data

    return folder_with
