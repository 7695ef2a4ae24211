"""The network: encoders, cross-task attention, heads, losses, checkpoints."""
