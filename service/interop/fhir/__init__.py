"""FHIR R4 (4.0.1): a Bundle becomes a payload, and the answer becomes a Bundle.

`reading` maps the resources of a request, `answer` builds those of the response. Both know nothing
of HTTP.
"""
