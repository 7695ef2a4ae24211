"""Damages files of cohorts, checkpoints and databases."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

_VALUES = st.sampled_from(
    [None, True, -1, 0, 10**12, 1.5, "", "x", "\x00", "../../etc/passwd", [], {}, [[]], {"a": 1}]
)


def damage_file(draw: Any, path: Path) -> None:
    """Truncates a file, changes bytes of it, removes it or replaces it."""
    content = path.read_bytes()
    kind = draw(st.sampled_from(["cut", "flip", "other", "gone", "folder", "loop", "double"]))
    if kind in ("cut", "flip"):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        changed = bytes([draw(st.integers(0, 255))]) + content[at + 1 :] if kind == "flip" else b""
        path.write_bytes(content[:at] + changed)
    elif kind == "other":
        path.write_bytes(
            draw(st.sampled_from([b"", b"\xff\xfe", b"{", b"[]", b"null", b"PK\x03\x04"]))
        )
    elif kind == "double":
        path.write_bytes(content + content)
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path.name)


def damage_json(draw: Any, path: Path) -> None:
    """Removes or replaces a value at any depth of a JSON document."""
    document = json.loads(path.read_bytes())
    at: Any = document
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = draw(st.sampled_from(keys))
        if not (isinstance(at[key], dict | list) and at[key]) or draw(st.booleans()):
            break
        at = at[key]
    kind = draw(st.sampled_from(["without", "other", "twice"]))
    if kind == "without":
        del at[key]
    elif kind == "twice" and isinstance(at, list):
        at.append(copy.deepcopy(at[key]))
    else:
        at[key] = draw(_VALUES)
    path.write_text(json.dumps(document), encoding="utf-8")


def copied(folder: Path, to: Path) -> Path:
    """Copies a folder and replaces an earlier copy."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to
