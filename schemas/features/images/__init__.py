"""Features of chest X-rays: decoding, view, plausibility, pixels."""
