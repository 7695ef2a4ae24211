"""Serves a bundle over HTTP."""

import os

# Otherwise ONNX Runtime tells its makers of each start, machine and model (its Privacy.md). It asks
# once, when it is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
