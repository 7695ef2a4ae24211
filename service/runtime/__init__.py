"""Loads a bundle and runs its ONNX graphs."""
