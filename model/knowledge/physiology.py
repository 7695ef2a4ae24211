"""Physiological quantities of several variables, from the statistics of a patient's series.

Each takes a function that returns a statistic of a variable, [B], NaN if it was not measured, and
returns [B], NaN if a part is missing.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# Statistic of a variable, [B]: (variable, statistic) -> values in the variable's canonical unit.
Statistic = Callable[[str, str], Tensor]
Formula = Callable[[Statistic], Tensor]


def shock_index(of: Statistic) -> Tensor:
    """Heart rate over systolic pressure (Allgöwer & Burri, Dtsch Med Wochenschr 1967;92:1947)."""
    return of("heart_rate", "recent_mean") / of("systolic_blood_pressure", "recent_mean")


def _inspired_fraction(of: Statistic) -> Tensor:
    """The inspired fraction of oxygen, 0.2 to 1; the recent one, else that of the whole window."""
    recent = of("fraction_inspired_oxygen", "recent_mean")
    whole = of("fraction_inspired_oxygen", "mean")
    return torch.where(torch.isnan(recent), whole, recent) / 100


def oxygenation_ratio(of: Statistic) -> Tensor:
    """PaO2/FiO2 in mm[Hg] (Berlin definition, JAMA 2012;307:2526)."""
    return of("oxygen_partial_pressure", "last") / _inspired_fraction(of)


def saturation_ratio(of: Statistic) -> Tensor:
    """SpO2/FiO2 in % (Rice et al., Chest 2007;132:410)."""
    return of("oxygen_saturation", "recent_mean") / _inspired_fraction(of)


def rox_index(of: Statistic) -> Tensor:
    """SpO2/FiO2 over the respiratory rate, % min (Roca et al., J Crit Care 2016;35:200)."""
    return saturation_ratio(of) / of("respiratory_rate", "recent_mean")


def urea_creatinine_ratio(of: Statistic) -> Tensor:
    """Urea nitrogen over creatinine; 0 if the urea nitrogen is at most 20 mg/dL, which is normal.

    A high ratio suggests bleeding into the gut or a lack of volume (Srygley, JAMA 2012;307:1072).
    """
    urea = of("blood_urea_nitrogen", "last")
    ratio = urea / of("creatinine", "last")
    return torch.where(urea <= 20, torch.zeros_like(ratio), ratio)


def corrected_anion_gap(of: Statistic) -> Tensor:
    """Na - Cl - HCO3 in mmol/L, plus 2.5 for each g/dL of albumin below 4 if albumin is known.

    Figge et al., Crit Care Med 1998;26:1807.
    """
    gap = of("sodium", "last") - of("chloride", "last") - of("bicarbonate", "last")
    missing_albumin = (4 - of("albumin", "last")).clamp_min(0)
    return gap + 2.5 * torch.nan_to_num(missing_albumin)


def creatinine_ratio(of: Statistic) -> Tensor:
    """Highest over lowest creatinine, if the highest is above 1 mg/dL; else 1 (KDIGO 2012)."""
    highest = of("creatinine", "maximum")
    ratio = highest / of("creatinine", "minimum")
    return torch.where(highest <= 1, torch.ones_like(ratio), ratio)


def hourly_urine_output(of: Statistic) -> Tensor:
    """Urine of the recent hours in mL/h (KDIGO 2012, for a patient of 70 to 80 kg)."""
    return of("urine_output", "recent_mean")


def driving_pressure(of: Statistic) -> Tensor:
    """Plateau pressure minus PEEP in cm[H2O] (Amato et al., N Engl J Med 2015;372:747)."""
    return of("plateau_pressure", "last") - of("positive_end_expiratory_pressure", "last")


def transaminase_ratio(of: Statistic) -> Tensor:
    """AST over ALT; 0 if the AST is at most 80 U/L (De Ritis et al., Clin Chim Acta 1957;2:70)."""
    aspartate = of("aspartate_aminotransferase", "last")
    ratio = aspartate / of("alanine_aminotransferase", "last").clamp_min(1)
    return torch.where(aspartate <= 80, torch.zeros_like(ratio), ratio)


def osmolality(of: Statistic) -> Tensor:
    """2 Na + glucose/18 + urea nitrogen/2.8 in mmol/kg (Purssell, Ann Emerg Med 2001;38:653)."""
    glucose, urea = of("glucose", "last"), of("blood_urea_nitrogen", "last")
    return 2 * of("sodium", "last") + glucose / 18 + urea / 2.8


def pulse_pressure(of: Statistic) -> Tensor:
    """Systolic minus diastolic pressure in mm[Hg]."""
    return of("systolic_blood_pressure", "mean") - of("diastolic_blood_pressure", "mean")


# The formulas of `findings.toml`, each with the variables that it needs.
FORMULAS: Mapping[str, tuple[Formula, tuple[str, ...]]] = {
    "shock_index": (shock_index, ("heart_rate", "systolic_blood_pressure")),
    "oxygenation_ratio": (
        oxygenation_ratio,
        ("oxygen_partial_pressure", "fraction_inspired_oxygen"),
    ),
    "saturation_ratio": (saturation_ratio, ("oxygen_saturation", "fraction_inspired_oxygen")),
    "rox_index": (rox_index, ("oxygen_saturation", "fraction_inspired_oxygen", "respiratory_rate")),
    "urea_creatinine_ratio": (urea_creatinine_ratio, ("blood_urea_nitrogen", "creatinine")),
    "corrected_anion_gap": (corrected_anion_gap, ("sodium", "chloride", "bicarbonate", "albumin")),
    "creatinine_ratio": (creatinine_ratio, ("creatinine",)),
    "hourly_urine_output": (hourly_urine_output, ("urine_output",)),
    "driving_pressure": (
        driving_pressure,
        ("plateau_pressure", "positive_end_expiratory_pressure"),
    ),
    "transaminase_ratio": (
        transaminase_ratio,
        ("aspartate_aminotransferase", "alanine_aminotransferase"),
    ),
    "osmolality": (osmolality, ("sodium", "glucose", "blood_urea_nitrogen")),
    "pulse_pressure": (pulse_pressure, ("systolic_blood_pressure", "diastolic_blood_pressure")),
}
