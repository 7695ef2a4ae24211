"""The dictionaries of an answer have the fields of the response models."""

from typing import get_args

import pytest

from schemas import response
from service.prediction import answer_fields

MODELS = {
    answer_fields.AnswerFields: response.Answer,
    answer_fields.PredictionFields: response.Prediction,
    answer_fields.IntervalFields: response.Interval,
    answer_fields.AbstainedFields: response.Abstained,
    answer_fields.ExplanationFields: response.Explanation,
    answer_fields.TaskAttentionFields: response.TaskAttention,
    answer_fields.DrawnFields: response.TaskWeight,
    answer_fields.AttentionMatrixFields: response.AttentionMatrix,
    answer_fields.ContributionsFields: response.Contributions,
    answer_fields.TaskVariablesFields: response.TaskVariables,
}


@pytest.mark.parametrize(("fields", "model"), MODELS.items(), ids=lambda cls: cls.__name__)
def test_a_type_has_the_fields_of_its_model(fields, model):
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    assert fields.__required_keys__ | fields.__optional_keys__ == model.model_fields.keys()
    assert required <= fields.__required_keys__


def test_evidence_has_the_fields_of_all_kinds_of_parts():
    kinds = get_args(get_args(response.Evidence)[0])
    fields = answer_fields.EvidenceFields
    expected = {name for kind in kinds for name in kind.model_fields}
    assert fields.__required_keys__ | fields.__optional_keys__ == expected
    required = [
        {name for name, field in kind.model_fields.items() if field.is_required()} for kind in kinds
    ]
    assert fields.__required_keys__ == set.intersection(*required)
