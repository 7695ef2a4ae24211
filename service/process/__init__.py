"""The processes of the service: supervisor, workers, graph server, hot reload."""
