"""The tokenizer of clinical notes: trained once, on open text, without any label.

Run as `python -m model.tokenizer DATA OUT`; the project's own is `schemas/tokenizer.json`.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 8192
# Ids 0, 1, 2: `schemas.features` pads with 0 and ends every note with [SEP].
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[SEP]")


def train(texts: Iterable[str]) -> Tokenizer:
    """A WordPiece tokenizer of at most VOCABULARY tokens.

    Lower case, because notes are typed by hand in every case; digits one by one, so that a number
    never seen is still read, and no token can be a date or a record number.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
