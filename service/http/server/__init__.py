"""The HTTP server of a worker: sockets, connections, limits, draining."""
