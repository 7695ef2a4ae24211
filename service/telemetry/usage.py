"""What the service has seen since it started, for the dashboard: counts, and no value of a patient.

`/metrics` says more, and only to the cluster; this is for whoever may ask for predictions.
"""

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict, Field

from schemas.response import MODALITIES, Modality


class Usage(BaseModel):
    """Counts since the service started, of all workers."""

    model_config = ConfigDict(frozen=True)

    predictions: int = Field(description="Predictions answered, each of a batch")
    requests: Mapping[str, int] = Field(description="Requests answered, by HTTP status")
    modalities: Mapping[Modality, int] = Field(description="Predictions whose request had it")
    variables: Mapping[str, int] = Field(
        description="Predictions whose request had a usable value, by variable of the bundle"
    )
    ignored: Mapping[str, int] = Field(description="Input that was not used, by reason")


def usage_of(text: bytes) -> Usage:
    """Of the counters in the Prometheus text format."""
    counters = {
        family.name: family.samples for family in text_string_to_metric_families(text.decode())
    }

    def by(name: str, label: str) -> dict[str, int]:
        sums: dict[str, int] = {}
        for sample in counters.get(name, []):
            if sample.name == f"{name}_total":
                key = sample.labels.get(label, "")
                sums[key] = sums.get(key, 0) + int(sample.value)
        return sums

    present = by("m3h_modality_present", "modality")
    return Usage(
        predictions=sum(by("m3h_predictions", "").values()),
        requests=by("m3h_requests", "status"),
        modalities={modality: present.get(modality, 0) for modality in MODALITIES},
        variables=by("m3h_variable_present", "variable"),
        ignored=by("m3h_input_ignored", "reason"),
    )
