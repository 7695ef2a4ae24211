"""eICU Collaborative Research Database: ICU stays in many hospitals (demo 2.0.1, ODbL 1.0).

The tables of the database are joined with the YAIB hourly grid, which holds the vital signs and
laboratory values that the demo's own folder lacks. Only the grid made for length of stay is read,
because it alone has every stay. The other grids exclude stays by later events, and count the hour
before admission in their first row; reading them would leak the future into the input.

A payload holds only data that were known at its `as_of`: a row of the grid summarises an hour and
has the time of the hour's end; a note counts from the time of entry. The table `diagnosis` is the
source of the labels and never an input. Past history, admission diagnosis and notes may name a
disease, because they were known at the bedside: part of what a model learns from them is
recognition, not prediction.

The database holds no dates, only minutes since admission to the unit. Here every stay begins on
January 1 of the year of discharge, at its hour of admission, in UTC.
"""

from model.cohorts.eicu.records import note_texts, read

__all__ = ["SOURCE", "note_texts", "read"]

SOURCE = (
    "eICU Collaborative Research Database Demo 2.0.1 (PhysioNet) and its hourly grid, as made by "
    "YAIB; Open Database License 1.0 (ODbL)"
)
