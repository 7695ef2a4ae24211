"""The error of recalibration."""

from model.errors import UserError


class RecalibrationError(UserError):
    """A cohort or a bundle cannot be used for recalibration."""
