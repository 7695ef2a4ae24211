"""The data contract: requests, features, tasks, responses and bundles."""
