"""Names that hospitals write, mapped to ours: units of measurement, categories, treatments."""
