"""Image features of chest X-rays: decoding, view, plausibility, pixels."""
