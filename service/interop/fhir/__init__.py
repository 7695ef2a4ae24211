"""FHIR R4 (4.0.1): a Bundle becomes a payload, and the answer becomes a Bundle.

`schemas.fhir` reads the resources of a request, `request` is a request in the queue, `answer`
builds the resources of the response. All know nothing of HTTP.
"""
