"""Explanations: attribution to modalities and tasks, and occlusion of single inputs."""
