"""Serves a bundle over HTTP."""

import os

# ONNX Runtime reports each start, machine and model to its vendor unless this variable is set (see
# Privacy.md in its sources). It reads the variable once, when it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
