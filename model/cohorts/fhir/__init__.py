"""A bulk export of FHIR R4 (FHIR Bulk Data Access 2.0): NDJSON files, a resource in each line.

The resources of a patient become a Bundle, which `schemas.fhir` reads as the service reads a
request. Memory holds the resources of some hundred patients, the Locations and the Medications; the
others go to a temporary folder (`TMPDIR`) in partitions of patients.
"""

from model.cohorts.fhir.records import read

__all__ = ["SOURCE", "read"]

SOURCE = "a hospital's own data as a bulk export of FHIR R4"
