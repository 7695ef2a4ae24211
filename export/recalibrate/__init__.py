"""Recalibrates a bundle for another hospital: the same model, corrected for the local charting.

Needs no torch: the fusion graph itself is edited. The evidence that the model finds in a patient
stays the same, and so does the order in which a task ranks patients. These values are shifted:

- the log-odds of each disease and of mortality, by one number
  (`model.calibration.calibrate.prior_shift`). A patient without any input gets the local
  prevalence;
- the log-odds of a choice of classes, by one number for each class. P(died) of the disposition is
  that of mortality, so only the survivors' classes are shifted against each other;
- the ends of the interval of a length of stay, until it holds nine in ten local patients. The value
  itself stays: a shift of log-days fitted to 50 MIMIC-IV patients made it worse for the others.

The manifest's prevalences and Venn-Abers intervals are shifted, too. Sets are made again from the
local patients if each answer has twenty of them. Otherwise their thresholds are shifted, which
keeps their coverage only if the databases differ in prevalence alone (MIMIC-IV differs in more).
"""

from export.recalibrate.bundle import recalibrate
from export.recalibrate.errors import RecalibrationError

__all__ = ["RecalibrationError", "recalibrate"]
