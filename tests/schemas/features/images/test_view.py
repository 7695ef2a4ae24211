"""The view of a film, as hospitals spell it."""

import pytest

from schemas.features.images.view import is_stated, preference, view_of

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
def test_a_view_is_read_as_hospitals_spell_it(text, view):
    assert is_stated(text)
    assert view_of(text) == view
    assert view_of(text.lower()) == view


@pytest.mark.parametrize("text", [None, "", "  ", "?", "-", "unknown", "UNK", "N/A", "none"])
def test_a_view_that_is_not_stated_is_unknown(text):
    assert not is_stated(text)
    assert view_of(text) is None


def test_pa_goes_before_ap_before_other_frontal_views_before_unknown_ones():
    ranks = [preference(text) for text in ("P.A. erect", "AP supine", "frontal", "XYZ")]
    assert ranks == sorted(set(ranks))
    assert preference(None) == preference("XYZ")
