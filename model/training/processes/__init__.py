"""Where a training runs: its device, its processes, and jobs on disk."""
