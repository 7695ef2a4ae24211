"""The tokens of notes that can tell something about a disease.

A note always holds words that say nothing about the patient's state ("family updated at the
bedside"), and parts of words. A model of few patients takes some of them for signs of a disease.
"""

from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

from schemas.features import FeatureSpec

_WORD_START = "▁"  # of a SentencePiece token that begins a word
_MIN_LETTERS = 4  # shorter tokens are mostly parts of words


@cache
def _general_words() -> frozenset[str]:
    text = files("model.representations").joinpath("general_words.txt").read_text("utf-8")
    return frozenset(text.split())


def informative_ids(spec: FeatureSpec) -> Tensor:
    """[vocabulary] bool: whether an id is a phrase or a whole word that is not a general one.

    The ids of assertions are not: they are findings (`model.knowledge.findings`).
    """
    informative = torch.zeros(spec.vocabulary, dtype=torch.bool)
    words = spec.tokenizer.get_vocab_size()
    for i in range(words):
        token = spec.tokenizer.id_to_token(i) or ""
        word = token.removeprefix(_WORD_START)
        informative[i] = (
            token != word
            and len(word) >= _MIN_LETTERS
            and word.isalpha()
            and word not in _general_words()
        )
    informative[words : spec.first_assertion_id] = True
    return informative
