"""Interfaces in the formats of hospitals: from a format to a payload, and back from the answer."""
