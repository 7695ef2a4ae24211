"""HTTP parts of the FHIR interface: error responses and the OpenAPI document."""
