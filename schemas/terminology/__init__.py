"""Mapping of hospital spellings to declared units, categories and treatments."""
