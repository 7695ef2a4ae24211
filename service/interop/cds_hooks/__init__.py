"""CDS Hooks 2.0.1: services, prefetch, cards, and feedback. Knows nothing of HTTP.

Source: the specification at https://cds-hooks.hl7.org/2.0.1, named "CDS Hooks" below.
"""
