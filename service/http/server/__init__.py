"""The HTTP server of one worker: sockets, connections, limits, draining."""
