"""Note features: plain text, negation, language check, token ids."""
