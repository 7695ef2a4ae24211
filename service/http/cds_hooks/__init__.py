"""HTTP parts of CDS Hooks: authentication and the OpenAPI document."""
