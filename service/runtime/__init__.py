"""A bundle in memory and the engine that runs its ONNX graphs."""
