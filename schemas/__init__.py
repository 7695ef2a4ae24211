"""The contract: what a request, a feature, a task, an answer and a bundle are."""
