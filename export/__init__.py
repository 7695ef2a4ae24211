"""Export: turns checkpoints into bundles of ONNX graphs; recalibrates and reduces bundles.

The steps of an export are: trace the graphs, check their parity with torch, write the manifest, and
compute the golden answers.
"""

import service  # noqa: F401 - turns off the telemetry of ONNX Runtime before it is loaded
