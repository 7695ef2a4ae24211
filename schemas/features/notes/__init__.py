"""Features of notes: plain text, negation, token ids."""
