"""The tokenizer of clinical notes, trained on open text without labels.

`python -m model.representations.tokenizer DATA OUT` trains it on the open notes below DATA. The
default tokenizer is `schemas/tokenizer.json`. A bundle contains the tokenizer of its model.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from model.cohorts import DataMissing, eicu

VOCABULARY = 8192
# Their ids are 0, 1 and 2. `schemas.features` pads with 0 and ends each note with [SEP].
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[SEP]")

# Folders below the data, their files, and the column with the text.
_CORPORA = (
    ("notes/aci-bench", ("train.csv", "valid.csv"), "note"),
    (
        "notes/mts-dialog/Main-Dataset",
        ("MTS-Dialog-TrainingSet.csv", "MTS-Dialog-ValidationSet.csv"),
        "section_text",
    ),
)


def train(texts: Iterable[str]) -> Tokenizer:
    """A byte-pair encoding of at most VOCABULARY tokens, reproducible from the texts.

    Text is lowercased, because notes are typed in any case. Digits are single tokens, so that any
    number can be encoded and no token is a date or a record number. An unknown word is split into
    known parts.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.Digits(individual_digits=True),
            # Marks the start of a word: "in" differs from the "in" of "insulin".
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def open_texts(data: Path) -> Iterator[str]:
    """The notes of the eICU demo's first day, of ACI-Bench and of MTS-Dialog.

    Raises DataMissing if a file does not exist.
    """
    yield from eicu.note_texts(data)
    for folder, names, column in _CORPORA:
        for name in names:
            path = data / folder / name
            if not path.is_file():
                raise DataMissing(f"{path} is missing")
            with path.open(encoding="utf-8", newline="") as file:
                yield from (row[column] for row in csv.DictReader(file))


def write(data: Path, out: Path) -> None:
    """Trains the tokenizer on the open notes below DATA and writes it to OUT."""
    document = json.loads(train(open_texts(data)).to_str())
    out.write_text(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    typer.run(write)
