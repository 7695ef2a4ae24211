"""HL7 v2 messages in ER7: reading into a payload, acknowledgements, results.

The messages are split by this package: the libraries for HL7 v2 build an object for each component
and take 0.3 to 10 seconds for 1,000 observations (docs/integration/hl7v2.md).
"""
