"""Routes of the HTTP interface, and the documents that they return."""
