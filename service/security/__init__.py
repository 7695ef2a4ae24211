"""Authentication of callers. Knows nothing of HTTP."""
