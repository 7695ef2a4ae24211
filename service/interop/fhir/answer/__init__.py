"""From an answer to a FHIR Bundle of RiskAssessments, Observations and their provenance."""
