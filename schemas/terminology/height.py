"""Height: a part of the tabular data that feeds send as an observation."""

from schemas.terminology.units import candidate_codes

HEIGHT = "height_cm"
HEIGHT_CODES = ("8302-2", "3137-7", "3138-5", "8306-3", "8308-9")  # LOINC
CENTIMETRES = {
    "cm": 1.0,
    "m": 100.0,
    "mm": 0.1,
    "[in_i]": 2.54,
    "[in_us]": 2.54,
    "in": 2.54,
    "inch": 2.54,
    "inches": 2.54,
    "[ft_i]": 30.48,
    "ft": 30.48,
    "feet": 30.48,
}


def centimetres(unit: str | None) -> float | None:
    """Centimetres per unit, which may be spelled as hospitals do; None for an unknown unit."""
    if unit is None:
        return None
    spelled = (unit.strip(), unit.strip().lower(), *candidate_codes(unit))
    return next((CENTIMETRES[code] for code in spelled if code in CENTIMETRES), None)
