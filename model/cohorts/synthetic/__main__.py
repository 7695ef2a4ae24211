"""Writes the example requests to `examples/`."""

from pathlib import Path

from model.cohorts.synthetic.example_payloads import write_examples

write_examples(Path("examples"))
