"""The tokenizer of a BERT, read from its Hugging Face folder."""

import json
import re
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from model.representations.weight_files import EncoderError, read_json

TOKENIZER, VOCABULARY = "tokenizer.json", "vocab.txt"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def read_tokenizer(folder: Path) -> str:
    """The tokenizer as JSON for a cohort: no truncation, no padding, no added special tokens.

    Reads tokenizer.json, or vocab.txt if there is none. Text of a note that spells a special token
    does not become one. Raises EncoderError if there is no usable tokenizer.
    """
    check_folder(folder)
    if (folder / TOKENIZER).is_file():
        try:
            original = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # noqa: BLE001 - tokenizers raises Exception itself
            raise EncoderError(f"{folder / TOKENIZER} is not a tokenizer: {error}") from None
    elif (folder / VOCABULARY).is_file():
        original = _from_vocabulary(folder)
    else:
        raise EncoderError(f"{folder} has neither {TOKENIZER} nor {VOCABULARY}")
    parts = json.loads(original.to_str())
    parts |= {"truncation": None, "padding": None, "post_processor": None}
    parts["added_tokens"] = [token for token in parts["added_tokens"] if not token["special"]]
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    ids = {name: tokenizer.token_to_id(name) for name in SPECIAL_TOKENS}
    missing = [name for name, number in ids.items() if number is None]
    if missing:
        raise EncoderError(f"{folder}: the vocabulary of a BERT needs {', '.join(missing)}")
    if ids["[PAD]"] != 0:
        raise EncoderError(f"{folder}: its [PAD] has the id {ids['[PAD]']}; it must have 0")
    return tokenizer.to_str()


def check_folder(folder: Path) -> None:
    """Raises EncoderError if the folder does not exist."""
    if not folder.is_dir():
        raise EncoderError(f"there is no folder {folder}")


def _from_vocabulary(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that has vocab.txt only.

    tokenizer_config.json states whether case matters. Without that file, case matters if a word has
    capital letters: Bio_ClinicalBERT and older folders of BioBERT have such words, and no file.
    """
    # Not splitlines: some words of BERTs are other kinds of line breaks.
    words = (folder / VOCABULARY).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    cased = any(re.search("[A-Z]", word) for word in words if not re.fullmatch(r"\[.*\]", word))
    ids = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", not cased),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
