"""Parsing of views of chest X-rays."""

import pytest

from schemas.features.images.view import is_view_stated, parse_view, view_rank

FRONTAL = (
    *("PA", "AP", "pa", "ap", " Pa ", "P.A.", "p.a.", "P-A", "A/P", "A P", "PA ERECT", "AP SUPINE"),
    *(
        "AP SEMI-UPRIGHT",
        "AP Supine",
        "AP_horizontal",
        "AP semi erect",
        "PORTABLE AP",
        "AP PORTABLE",
    ),
    *("POSTERO-ANTERIOR", "posteroanterior", "Postero Anterior", "POSTEROANTERIOR PROJECTION"),
    *("antero-posterior", "anteroposterior", "ANTERIOR-POSTERIOR", "Frontal", "CHEST FRONTAL"),
    *("antéro-postérieur", "face", "frontale", "AP DECUBITO SUPINO", "\uff30\uff21"),
)
LATERAL = (
    *(
        "LATERAL",
        "Lateral",
        "lat",
        "LL",
        "RL",
        "LEFT LATERAL",
        "RIGHT LATERAL",
        "L LAT",
        "LATERAL LEFT",
    ),
    *("lateral-left", "LLAT", "L", "R", "LATERAL UPRIGHT", "XTABLE LATERAL", "profil", "perfil"),
    *("Seitlich", "latero-lateral"),
)
OTHER = (
    *("OBLIQUE", "LAO", "RAO", "LPO", "RPO", "LEFT ANTERIOR OBLIQUE", "PA OBLIQUE", "AP AXIAL"),
    *("AP LORDOTIC", "apical lordotic", "LLD", "RLD", "AP LLD", "LEFT LATERAL DECUBITUS"),
    *("AP DECUBITUS", "SWIMMERS", "Axial", "Coronal", "COSTAL", "RLO"),
)
UNKNOWN = ("PA AND LATERAL", "PA/LAT", "2 VIEWS", "CHEST", "UPRIGHT", "PORTABLE", "XYZ", "APPLE")


@pytest.mark.parametrize(
    ("text", "view"),
    [(text, "frontal") for text in FRONTAL]
    + [(text, "lateral") for text in LATERAL]
    + [(text, "other") for text in OTHER]
    + [(text, None) for text in UNKNOWN],
)
def test_hospital_spellings_of_views_are_recognized(text, view):
    assert is_view_stated(text)
    assert parse_view(text) == view
    assert parse_view(text.lower()) == view


@pytest.mark.parametrize("text", [None, "", "  ", "?", "-", "unknown", "UNK", "N/A", "none"])
def test_an_unstated_view_is_unknown(text):
    assert not is_view_stated(text)
    assert parse_view(text) is None


def test_views_are_ranked_pa_ap_frontal_unknown():
    ranks = [view_rank(text) for text in ("P.A. erect", "AP supine", "frontal", "XYZ")]
    assert ranks == sorted(set(ranks))
    assert view_rank(None) == view_rank("XYZ")
