"""Turns weights into a bundle: ONNX graphs, parity with torch, a manifest, golden answers."""

import service  # noqa: F401 - keeps ONNX Runtime, once it is loaded, from telling of itself
