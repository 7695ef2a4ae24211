"""From a FHIR Bundle to the payload of a prediction, with the place of each part."""
