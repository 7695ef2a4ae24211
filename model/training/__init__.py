"""Training: data, devices, processes, the training loop and its log."""
