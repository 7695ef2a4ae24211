"""Turns weights into a bundle: ONNX graphs, parity with torch, a manifest, golden answers."""
