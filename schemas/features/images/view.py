"""Parsing of the view of a chest X-ray from free text.

Supported spellings: DICOM View Position (PS3.3, C.8.7.1.1.2 and C.8.11.1.1.1), the View Position of
NIH ChestX-ray14, MIMIC-CXR, PadChest and CheXpert, and French, German, Italian and Spanish words.
"""

import re
import unicodedata
from typing import Literal

View = Literal["frontal", "lateral", "other"]

_PREFERENCE = ("PA", "AP")
_FRONTAL = {*_PREFERENCE, "FRONTAL", "FRONTALE", "FRONT", "FACE"}
_LATERAL = {
    *("LATERAL", "LATERALE", "LATERALIS", "LAT", "LL", "RL", "LLAT", "RLAT", "LTLAT", "RTLAT"),
    *("XTL", "XTABLE", "PROFILE", "PROFIL", "PROFILO", "PERFIL", "SEITLICH"),
}
_OTHER = {
    *("OBLIQUE", "OBLIQUA", "OBLICUA", "OBL", "LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "LLD"),
    *("RLD", "LORDOTIC", "LORDOTICA", "AXIAL", "CORONAL", "SAGITTAL", "COSTAL", "RIBS", "ABDOMEN"),
    *("SWIMMER", "SWIMMERS", "TANGENTIAL", "DECUB"),
}
_NOT_STATED = {"UNKNOWN", "UNK", "UNSPECIFIED", "NONE", "NULL", "NA", "N A"}
_MAX_LENGTH = 200  # characters that are parsed
_SPELLED_OUT = (
    (re.compile(r"\bPOSTER\w* ?ANTER\w*|\bP A\b"), "PA"),
    (re.compile(r"\bANTER\w* ?POSTER\w*|\bA P\b"), "AP"),
)


def is_view_stated(text: str | None) -> bool:
    """Whether the text states a view; `?` and `unknown` do not."""
    words = _words(text)
    return bool(words) and " ".join(words) not in _NOT_STATED


def parse_view(text: str | None) -> View | None:
    """Returns the view that a text names; None if it names no known view, or two views."""
    words = _words(text)
    named = set(words)
    is_decubitus = any(word.startswith("DECUBIT") for word in words)
    if named & _OTHER or (is_decubitus and not any(w.startswith("SUPIN") for w in words)):
        return "other"
    frontal = bool(named & _FRONTAL)
    lateral = bool(named & _LATERAL) or words in (["L"], ["R"])
    if frontal == lateral:
        return None
    return "frontal" if frontal else "lateral"


def view_rank(text: str | None) -> int:
    """Returns the rank of a view; the lowest is preferred: PA, AP, other known views, unknown."""
    if parse_view(text) is None:
        return len(_PREFERENCE) + 1
    words = _words(text)
    return next((i for i, word in enumerate(_PREFERENCE) if word in words), len(_PREFERENCE))


def _words(text: str | None) -> list[str]:
    """Returns words in capitals without accents. Spelled-out views become PA and AP."""
    plain = unicodedata.normalize("NFKD", (text or "")[:_MAX_LENGTH]).upper()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    joined = " ".join(re.findall(r"[A-Z0-9]+", plain))
    for pattern, short in _SPELLED_OUT:
        joined = pattern.sub(short, joined)
    return joined.split()
