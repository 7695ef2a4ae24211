"""A hospital's data in the OMOP Common Data Model (version 5.4; OHDSI).

Each table is a file `NAME.parquet`, `NAME.csv` or `NAME.csv.gz`, or a folder `NAME` of Parquet
files, in the data folder. `concept` contains the meaning of the ids: measurements by LOINC, units
by UCUM, diagnoses by ICD-9-CM and ICD-10-CM, procedures by SNOMED CT and ICD-10-PCS, drugs by their
name.

Times are wall times, read as UTC. OMOP has no storage times: a value is known at its time.
"""

from model.cohorts.omop.records import read

__all__ = ["SOURCE", "read"]

SOURCE = "a hospital's own data in the OMOP Common Data Model"
