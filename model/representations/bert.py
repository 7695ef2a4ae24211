"""A BERT as the encoder of notes, read from a local Hugging Face folder.

Shapes: B patients, N chunks, W tokens of a chunk, L tokens of a patient, H hidden size,
F the encoder's `width`.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, ValidationError
from tokenizers import Tokenizer
from torch import Tensor

from model.representations.bert_tokenizer import check_folder, read_tokenizer
from model.representations.frozen_encoder import EncoderFacts, FrozenEncoder
from model.representations.weight_files import (
    EncoderError,
    load_into,
    read_json,
    read_weights,
    round_matrices,
    sha256_of,
)

CONFIG = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


class BertShape(BaseModel):
    """The fields of a BERT's config.json that decide what it computes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12


class BertFacts(EncoderFacts):
    """Facts about a BERT. `cls`, `sep`: the ids of its tokens [CLS] and [SEP]."""

    kind: Literal["bert"] = "bert"
    shape: BertShape
    cls: int
    sep: int


class Bert(FrozenEncoder):
    """The mean over all tokens' hidden states, and the maximum over the chunks' means.

    A patient's notes are cut into the smallest number of equally long chunks that the model can
    read, each between [CLS] and [SEP]. No token is lost, and no chunk is a short rest. A chunk's
    vector is the mean of its tokens' last hidden states. Mean and maximum over chunks as in
    ClinicalBERT (Huang et al. 2019, arXiv 1904.05342). 0 is padding and has no effect.
    """

    batch_size = 16

    def __init__(self, facts: BertFacts) -> None:
        from transformers import BertConfig, BertModel  # noqa: PLC0415 - slow, only for a BERT

        super().__init__(2 * facts.shape.hidden_size)
        self.facts = facts
        self.max_chunk = facts.shape.max_position_embeddings - 2
        config = BertConfig(**facts.shape.model_dump())
        config._attn_implementation = "eager"  # noqa: SLF001 - plain matrix products export well
        self.bert = BertModel(config, add_pooling_layer=False)
        self._freeze()

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B F"]:
        return self.normalise(self.embed(tokens))

    def embed(self, inputs: Int[Tensor, "B L"]) -> Float[Tensor, "B F"]:
        row, chunks = self._split(inputs)
        is_token = (chunks != 0).unsqueeze(2)
        count = is_token.sum(dim=1)
        total = (self._hidden_states(chunks) * is_token).sum(dim=1)
        shape = (inputs.shape[0], total.shape[1])  # with len() the exporter would fix the batch
        lengths = count.new_zeros(shape[0], 1).index_add(0, row, count)
        mean = total.new_zeros(shape).index_add(0, row, total) / lengths.clamp_min(1)
        largest = total.new_full(shape, -torch.inf).scatter_reduce(
            0, row.unsqueeze(1).expand(-1, shape[1]), total / count.clamp_min(1), "amax"
        )
        return torch.cat([mean, largest], dim=1)

    def _split(self, tokens: Int[Tensor, "B L"]) -> tuple[Int[Tensor, " N"], Int[Tensor, "N W"]]:
        """The row of each chunk, and its tokens. A row without tokens has one empty chunk."""
        position = torch.arange(tokens.shape[1], device=tokens.device)
        length = ((tokens != 0) * (position + 1)).amax(dim=1, keepdim=True)
        chunks = ((length + self.max_chunk - 1) // self.max_chunk).clamp_min(1)
        chunk_length = ((length + chunks - 1) // chunks).clamp_min(1)
        is_start = (position % chunk_length == 0) & ((position < length) | (position == 0))
        row, start = is_start.nonzero().unbind(dim=1)
        width: Any = chunk_length.max().item()
        # The exporter needs the bounds of this data-dependent size.
        torch._check(width >= 1)  # noqa: SLF001 - no public name
        torch._check(width <= self.max_chunk)  # noqa: SLF001 - no public name
        step = torch.arange(width, device=tokens.device)
        index = start.unsqueeze(1) + step
        inside = (step < chunk_length[row]) & (index < length[row])
        chunk_tokens = tokens[row.unsqueeze(1), index.clamp_max(tokens.shape[1] - 1)]
        return row, torch.where(inside, chunk_tokens, 0)

    def _hidden_states(self, chunks: Int[Tensor, "N W"]) -> Float[Tensor, "N W H"]:
        """Last hidden states of the chunks' tokens, computed between [CLS] and [SEP]."""
        ends = torch.zeros_like(chunks[:, :1])
        tokens = torch.cat([ends + self.facts.cls, chunks, ends], dim=1)
        position = torch.arange(tokens.shape[1], device=tokens.device)
        last = ((tokens != 0) * position).amax(dim=1, keepdim=True)
        # A chunk that ends where a note ends has its [SEP] already.
        closed = tokens.gather(1, last) == self.facts.sep
        tokens = torch.where((position == last + 1) & ~closed, self.facts.sep, tokens)
        output = self.bert(input_ids=tokens, attention_mask=(tokens != 0).long())
        hidden: Tensor = output.last_hidden_state
        return hidden[:, 1:-1]


def read_bert(folder: Path) -> Bert:
    """A BERT from a local Hugging Face folder.

    Raises EncoderError if a file is missing or damaged, or if the model is not a BERT.
    """
    shape = _read_shape(folder)
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise EncoderError(f"{folder} has no weights: neither {' nor '.join(WEIGHT_FILES)}")
    tokenizer = Tokenizer.from_str(read_tokenizer(folder))
    if tokenizer.get_vocab_size() > shape.vocab_size:
        raise EncoderError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, but {CONFIG} "
            f"allows {shape.vocab_size}"
        )
    weights = round_matrices(file, {_current_name(n): w for n, w in read_weights(file).items()})
    facts = BertFacts(
        name=folder.resolve().name,
        digest=sha256_of(file),
        shape=shape,
        cls=tokenizer.token_to_id("[CLS]"),
        sep=tokenizer.token_to_id("[SEP]"),
    )
    encoder = Bert(facts)
    load_into(file, encoder.bert, weights)
    return encoder


def _read_shape(folder: Path) -> BertShape:
    check_folder(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise EncoderError(
            f"{folder} has no {CONFIG}; it must be the Hugging Face folder of a BERT"
        )
    config = read_json(path)
    kind = config.get("model_type", "bert")
    if kind != "bert":
        raise EncoderError(f"{path}: model_type is {kind!r}; it must be 'bert'")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise EncoderError(f"{path}: position_embedding_type must be 'absolute'")
    try:
        return BertShape.model_validate(config)
    except ValidationError as error:
        raise EncoderError(f"{path}: {error}") from None


def _current_name(name: str) -> str:
    """The name in today's BertModel: without a prefix, and with current layer norm names."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
