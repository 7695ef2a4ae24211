"""Paths of the endpoints that orchestrators and Prometheus request every few seconds."""

LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"
