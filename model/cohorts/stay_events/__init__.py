"""From stays in a unit and their events to records.

The readers of MIMIC-IV, MEDS and OMOP give a table of stays and lazy tables of events. The large
tables of events do not fit in memory: each is streamed once, its events go to a temporary folder
(`TMPDIR`) in partitions of some hundred stays, and the records are made partition by partition.
"""
