"""The ids of notes that the network may learn from."""

import pytest

from model.representations.informative_words import informative_ids
from schemas.features import FeatureSpec

SPEC = FeatureSpec.default()
INFORMATIVE = informative_ids(SPEC)


def is_used(word):
    return bool(INFORMATIVE[SPEC.tokenizer.token_to_id(word)])


@pytest.mark.parametrize("word", ["▁pneumonia", "▁sepsis", "▁diabetes", "▁wheez", "▁intubated"])
def test_words_of_medicine_are_used(word):
    assert is_used(word)


@pytest.mark.parametrize("word", ["▁family", "▁patient", "▁today", "▁hospital"])
def test_general_words_are_not_used(word):
    assert not is_used(word)


@pytest.mark.parametrize("part", ["tension", "ation", "vascular"])
def test_parts_within_a_word_are_not_used(part):
    assert not is_used(part)


@pytest.mark.parametrize("token", ["▁hr", "▁4", "▁.", "[PAD]", "[UNK]", "[SEP]", "7"])
def test_short_words_numbers_and_special_tokens_are_not_used(token):
    assert not is_used(token)


def test_phrases_are_used_and_assertions_are_not():
    """Assertions are findings, whose effects are stated."""
    assert INFORMATIVE.shape == (SPEC.vocabulary,)
    first = SPEC.tokenizer.get_vocab_size()
    assert INFORMATIVE[first : first + SPEC.phrases].all()
    assert not INFORMATIVE[SPEC.first_assertion_id :].any()
    assert len(INFORMATIVE) > SPEC.first_assertion_id
