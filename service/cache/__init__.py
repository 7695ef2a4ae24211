"""Caches of embeddings, in memory and in Redis."""
