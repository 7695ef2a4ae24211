"""Caches of embeddings: in memory, and in Redis for all replicas."""
