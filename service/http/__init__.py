"""The HTTP interface: application, middleware, problem documents, OpenAPI."""
