"""Representations of the modalities, learned without labels or loaded from pretrained encoders."""
