"""Encoders that a hospital has as files: any BERT for notes, a DenseNet for chest X-rays.

Each is a representation like those in `represent`: fixed, computed once for each sample and shared
by the members of an ensemble and by the coalitions of TIM. What is learned is each member's linear
layer. They are not fine-tuned: a few thousand patients would bend a hundred million weights to
themselves, and every member and coalition would need its own. HAIM, earlier work of M3H's authors,
takes Bio_ClinicalBERT and a DenseNet-121 of torchxrayvision the same way (Soenksen et al. 2022, npj
Digital Medicine 5:149).

No file is trusted: weights are read as tensors, and code that a file holds is never run. All that
rebuilds an encoder is in its facts and the checkpoint's weights; the files are needed once.
Shapes: B patients, N chunks, L tokens, H hidden size, F the representation's `width`.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from jaxtyping import Float, Int, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import UserError
from model.network.net import NetConfig
from model.representations.represent import Normalise
from schemas.features import FeatureSpec
from schemas.response import Modality

Weights = dict[str, Tensor]

CONFIG, TOKENIZER, VOCABULARY = "config.json", "tokenizer.json", "vocab.txt"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# What published DenseNets for chest X-rays were trained on.
IMAGE_SIDE = 224
NAMED = 3  # names that an error tells


class EncoderError(UserError):
    """An encoder that cannot be used: what is wrong with its files, or with the cohort."""


class _Facts(BaseModel):
    """`name`: the file's or folder's own, never its path. `digest`: SHA-256 of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}, not fine-tuned; SHA-256 of its weights: {self.digest}"


class BertShape(BaseModel):
    """What of a BERT's config.json decides what it computes."""

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


class BertFacts(_Facts):
    """A BERT, and the ids of its tokens [CLS] and [SEP]."""

    kind: Literal["bert"] = "bert"
    shape: BertShape
    cls: int
    sep: int


class DenseNetFacts(_Facts):
    """A DenseNet: `blocks` of so many layers, each of which adds `growth` channels."""

    kind: Literal["densenet"] = "densenet"
    channels: int
    initial: int
    growth: int
    bottleneck: int
    blocks: tuple[int, ...]


Pretrained = Annotated[BertFacts | DenseNetFacts, Field(discriminator="kind")]


class Frozen(nn.Module, ABC):
    """A pretrained network as a representation: what it says, scaled by the training patients."""

    # Samples that are represented together, so that memory holds them.
    at_once: int

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.normalise = Normalise((width,))

    @property
    def device(self) -> torch.device:
        return self.normalise.centre.device

    @abstractmethod
    def embed(self, given: Tensor) -> Float[Tensor, "B F"]:
        """What the network says of tokens or pixels, not yet scaled."""

    @torch.no_grad()
    def fit(self, some: Iterable[Tensor]) -> None:
        """Takes the scale from `some` training patients' inputs, a few at a time."""
        said = [self.embed(given.to(self.device)).cpu() for given in some]
        if not said:
            return
        self.normalise.fit(torch.cat(said))
        # A feature that hardly differs between patients is not made as loud as the others.
        scale = self.normalise.scale
        scale.clamp_(min=0.1 * float(scale.median()))

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 - never: no dropout, no new statistics
        return super().train(False)

    def _freeze(self) -> None:
        self.eval()
        self.requires_grad_(False)


class Bert(Frozen):
    """The mean of what a BERT says of all tokens, and the largest of what it says of a chunk.

    A sample's notes are cut into as few chunks as hold them, equally long, each between [CLS] and
    [SEP]: nothing is lost, and no chunk is a mere rest. A chunk's vector is the mean of its tokens'
    last hidden states. Mean and maximum over chunks as in ClinicalBERT (Huang et al. 2019, arXiv
    1904.05342). What is 0 is padding, of which nothing depends.
    """

    at_once = 16

    def __init__(self, facts: BertFacts) -> None:
        # Slow to import, and needed by none who has no BERT.
        from transformers import BertConfig, BertModel  # noqa: PLC0415

        super().__init__(2 * facts.shape.hidden_size)
        self.facts = facts
        self.most = facts.shape.max_position_embeddings - 2
        config = BertConfig(**facts.shape.model_dump())
        config._attn_implementation = "eager"  # noqa: SLF001 - plain products, which export well
        self.bert = BertModel(config, add_pooling_layer=False)
        self._freeze()

    def forward(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B F"]:
        return self.normalise(self.embed(tokens))

    def embed(self, given: Int[Tensor, "B L"]) -> Float[Tensor, "B F"]:
        row, chunks = self._cut(given)
        told = (chunks != 0).unsqueeze(2)
        count = told.sum(dim=1)
        total = (self._hidden(chunks) * told).sum(dim=1)
        shape = (given.shape[0], total.shape[1])  # not len(): the exporter would fix it
        lengths = count.new_zeros(shape[0], 1).index_add(0, row, count)
        mean = total.new_zeros(shape).index_add(0, row, total) / lengths.clamp_min(1)
        largest = total.new_full(shape, -torch.inf).scatter_reduce(
            0, row.unsqueeze(1).expand(-1, shape[1]), total / count.clamp_min(1), "amax"
        )
        return torch.cat([mean, largest], dim=1)

    def _cut(self, tokens: Int[Tensor, "B L"]) -> tuple[Int[Tensor, " N"], Int[Tensor, "N W"]]:
        """Which row each chunk is of, and its tokens; a row of no token has one empty chunk."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        length = ((tokens != 0) * (place + 1)).amax(dim=1, keepdim=True)
        chunks = ((length + self.most - 1) // self.most).clamp_min(1)
        each = ((length + chunks - 1) // chunks).clamp_min(1)
        begins = (place % each == 0) & ((place < length) | (place == 0))
        row, start = begins.nonzero().unbind(dim=1)
        width: Any = each.max().item()
        # For the exporter, to which this is a length like any other.
        torch._check(width >= 1)  # noqa: SLF001
        torch._check(width <= self.most)  # noqa: SLF001
        step = torch.arange(width, device=tokens.device)
        at = start.unsqueeze(1) + step
        inside = (step < each[row]) & (at < length[row])
        found = tokens[row.unsqueeze(1), at.clamp_max(tokens.shape[1] - 1)]
        return row, torch.where(inside, found, 0)

    def _hidden(self, chunks: Int[Tensor, "N W"]) -> Float[Tensor, "N W H"]:
        """Last hidden states of the chunks' tokens, [CLS] and [SEP] around them but not told."""
        ends = torch.zeros_like(chunks[:, :1])
        tokens = torch.cat([ends + self.facts.cls, chunks, ends], dim=1)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        last = ((tokens != 0) * place).amax(dim=1, keepdim=True)
        # A chunk that ends where a note does has its [SEP].
        closed = tokens.gather(1, last) == self.facts.sep
        tokens = torch.where((place == last + 1) & ~closed, self.facts.sep, tokens)
        said = self.bert(input_ids=tokens, attention_mask=(tokens != 0).long())
        hidden: Tensor = said.last_hidden_state
        return hidden[:, 1:-1]


class DenseNet(Frozen):
    """The pooled features of a DenseNet (Huang et al. 2017, arXiv 1608.06993).

    Its parameters have torchvision's names. One that reads one channel is torchxrayvision's, which
    was trained on grey from -1024 to 1024; one that reads three was trained as ImageNet's are, on
    three times the same grey (CheXNet, torchvision).
    """

    at_once = 64

    def __init__(self, facts: DenseNetFacts) -> None:
        features, width = _densenet(facts)
        super().__init__(width)
        self.facts = facts
        grey = facts.channels == 1
        mean = (0.5,) if grey else (0.485, 0.456, 0.406)
        deviation = (1 / 2048,) if grey else (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)
        self.mean: Tensor
        self.deviation: Tensor
        self.features = features
        self._freeze()

    def forward(self, pixels: UInt8[Tensor, "B 1 side side"]) -> Float[Tensor, "B F"]:
        return self.normalise(self.embed(pixels))

    def embed(self, given: UInt8[Tensor, "B 1 side side"]) -> Float[Tensor, "B F"]:
        seen = (given.to(torch.float32) / 255.0 - self.mean) / self.deviation
        return F.relu(self.features(seen)).mean(dim=(2, 3))


class _DenseLayer(nn.Module):
    """Adds `growth` channels to those that it is given."""

    def __init__(self, channels: int, facts: DenseNetFacts) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, facts.bottleneck, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(facts.bottleneck)
        self.conv2 = nn.Conv2d(facts.bottleneck, facts.growth, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        found = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, found], dim=1)


def _densenet(facts: DenseNetFacts) -> tuple[nn.Sequential, int]:
    """The layers before pooling, and how many channels come out."""
    channels = facts.initial
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=nn.Conv2d(facts.channels, channels, 7, stride=2, padding=3, bias=False),
        norm0=nn.BatchNorm2d(channels),
        relu0=nn.ReLU(),
        pool0=nn.MaxPool2d(3, stride=2, padding=1),
    )
    for b, count in enumerate(facts.blocks, start=1):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, count + 1):
            layers[f"denselayer{i}"] = _DenseLayer(channels, facts)
            channels += facts.growth
        parts[f"denseblock{b}"] = nn.Sequential(layers)
        if b < len(facts.blocks):
            parts[f"transition{b}"] = nn.Sequential(
                OrderedDict(
                    norm=nn.BatchNorm2d(channels),
                    relu=nn.ReLU(),
                    conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
                    pool=nn.AvgPool2d(2),
                )
            )
            channels //= 2
    parts["norm5"] = nn.BatchNorm2d(channels)
    return nn.Sequential(parts), channels


def make(facts: Pretrained) -> Frozen:
    """The encoder of these facts, its weights not yet there."""
    return Bert(facts) if isinstance(facts, BertFacts) else DenseNet(facts)


def read_encoders(config: NetConfig, spec: FeatureSpec) -> dict[Modality, Bert | DenseNet]:
    """The pretrained encoders that a configuration names, for a cohort of this `spec`.

    Raises EncoderError for files that are not as they must be, and for a cohort that was not made
    for the encoder.
    """
    found: dict[Modality, Bert | DenseNet] = {}
    if config.notes_encoder != "words":
        folder = Path(config.notes_encoder).expanduser()
        wanted, given = tokenizer_of(folder), Tokenizer.from_str(spec.tokenizer_json).to_str()
        if wanted != given or spec.phrases:
            raise EncoderError(
                f"the cohort's notes were not cut by the tokenizer of {folder}; make it with "
                f"'m3h-model cohort … --tokenizer {folder}'"
            )
        found["notes"] = read_bert(folder)
    if config.image_encoder != "pixels":
        file = Path(config.image_encoder).expanduser()
        if spec.image_side < IMAGE_SIDE:
            raise EncoderError(
                f"the cohort's images are {spec.image_side} pixels wide and high, and {file} needs "
                f"{IMAGE_SIDE}; make it with 'm3h-model cohort … --image-side {IMAGE_SIDE}'"
            )
        found["image"] = read_densenet(file)
    return found


def tokenizer_of(folder: Path) -> str:
    """The tokenizer of a BERT's folder, as a cohort keeps it: nothing cut, nothing added.

    From tokenizer.json, or from vocab.txt where there is no other. Nothing in a note's text is a
    special token, whatever it spells. Raises EncoderError.
    """
    _folder(folder)
    if (folder / TOKENIZER).is_file():
        try:
            found = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # noqa: BLE001 - tokenizers raises Exception itself
            raise EncoderError(f"{folder / TOKENIZER} is no tokenizer: {error}") from None
    elif (folder / VOCABULARY).is_file():
        found = _from_vocabulary(folder)
    else:
        raise EncoderError(f"{folder} has neither {TOKENIZER} nor {VOCABULARY}")
    parts = json.loads(found.to_str())
    parts |= {"truncation": None, "padding": None, "post_processor": None}
    parts["added_tokens"] = [token for token in parts["added_tokens"] if not token["special"]]
    tokenizer = Tokenizer.from_str(json.dumps(parts))
    ids = {name: tokenizer.token_to_id(name) for name in SPECIAL_TOKENS}
    missing = [name for name, number in ids.items() if number is None]
    if missing:
        raise EncoderError(f"{folder}: its vocabulary has no {', '.join(missing)}: it is no BERT's")
    if ids["[PAD]"] != 0:
        raise EncoderError(f"{folder}: its [PAD] has the id {ids['[PAD]']}; it must have 0")
    return tokenizer.to_str()


def _from_vocabulary(folder: Path) -> Tokenizer:
    """Whether capitals count is said in tokenizer_config.json, or else by the words themselves.

    Bio_ClinicalBERT and older folders of BioBERT have capitals in their words and no such file.
    """
    # Not splitlines: some words of BERTs are other kinds of line breaks.
    words = (folder / VOCABULARY).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    path = folder / "tokenizer_config.json"
    said = _json(path) if path.is_file() else {}
    cased = any(re.search("[A-Z]", word) for word in words if not re.fullmatch(r"\[.*\]", word))
    ids = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=said.get("do_lower_case", not cased),
        strip_accents=said.get("strip_accents"),
        handle_chinese_chars=said.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def read_bert(folder: Path) -> Bert:
    """A BERT from a local Hugging Face folder. Raises EncoderError."""
    _folder(folder)
    if not (folder / CONFIG).is_file():
        raise EncoderError(f"{folder} has no {CONFIG}: it is no Hugging Face folder of a BERT")
    config = _json(folder / CONFIG)
    kind = config.get("model_type", "bert")
    if kind != "bert":
        raise EncoderError(f"{folder / CONFIG}: model_type is {kind!r}; it must be 'bert'")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise EncoderError(f"{folder / CONFIG}: position_embedding_type must be 'absolute'")
    try:
        shape = BertShape.model_validate(config)
    except ValidationError as error:
        raise EncoderError(f"{folder / CONFIG}: {error}") from None
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise EncoderError(f"{folder} has no weights: neither {' nor '.join(WEIGHT_FILES)}")
    tokenizer = Tokenizer.from_str(tokenizer_of(folder))
    if tokenizer.get_vocab_size() > shape.vocab_size:
        raise EncoderError(
            f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, and {CONFIG} "
            f"says {shape.vocab_size}"
        )
    weights = _as_stored(file, {_bert_name(n): w for n, w in _read(file).items()})
    facts = BertFacts(
        name=folder.resolve().name,
        digest=_digest(file),
        shape=shape,
        cls=tokenizer.token_to_id("[CLS]"),
        sep=tokenizer.token_to_id("[SEP]"),
    )
    encoder = Bert(facts)
    _load(file, encoder.bert, weights)
    return encoder


def _bert_name(name: str) -> str:
    """As BertModel calls it: without its place in a model with heads, in today's words."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def read_densenet(file: Path) -> DenseNet:
    """A DenseNet from a file of torch or safetensors. Raises EncoderError.

    Understood are torchvision's names, those before its version 0.2.1 (`norm.1`, `conv.1`), and any
    prefix (`module.densenet121.` of CheXNet); what comes after pooling is not read.
    """
    if not file.is_file():
        raise EncoderError(f"image_encoder: there is no file {file}")
    given = _read(file)
    first_layer = next((n for n in given if n.endswith("features.conv0.weight")), "")
    prefix = first_layer.removesuffix("conv0.weight")
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
    weights = _as_stored(
        file,
        {
            old.sub(r"\1\2.", name.removeprefix(prefix)): weight
            for name, weight in given.items()
            if name.startswith(prefix)
        },
    )
    layers = [re.fullmatch(r"denseblock(\d+)\.denselayer(\d+)\.conv2\.weight", n) for n in weights]
    blocks: dict[int, int] = {}
    for b, i in (map(int, layer.groups()) for layer in layers if layer):
        blocks[b] = max(i, blocks.get(b, 0))
    first, inner = weights.get("conv0.weight"), weights.get("denseblock1.denselayer1.conv2.weight")
    if first is None or inner is None:
        raise EncoderError(
            f"{file} is no DenseNet: it has no features.conv0 or no first layer; "
            f"it has {_some(given)}"
        )
    facts = DenseNetFacts(
        name=file.name,
        digest=_digest(file),
        channels=first.shape[1],
        initial=first.shape[0],
        growth=inner.shape[0],
        bottleneck=inner.shape[1],
        blocks=tuple(blocks.get(b, 0) for b in range(1, max(blocks) + 1)),
    )
    if facts.channels not in (1, 3):
        raise EncoderError(f"{file} reads {facts.channels} channels; it must read 1 or 3")
    encoder = DenseNet(facts)
    _load(file, encoder.features, weights)
    return encoder


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise EncoderError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return found


def _folder(folder: Path) -> None:
    if not folder.is_dir():
        raise EncoderError(f"there is no folder {folder}")


def _read(file: Path) -> Weights:
    """The tensors in a file, whatever they are nested in. Runs no code that the file may hold."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise EncoderError(f"{file} is no safetensors file: {error}") from None
    except Exception as error:  # noqa: BLE001 - of a broken file torch raises whatever comes
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            raise EncoderError(f"{file} is neither a torch nor a safetensors file") from None
        raise EncoderError(_CONVERT.format(file=file, code=code.group(1))) from None
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if isinstance(found, Mapping):
        found = {n: w for n, w in found.items() if isinstance(n, str) and isinstance(w, Tensor)}
    if not isinstance(found, dict) or not found:
        raise EncoderError(f"{file} holds no named tensors")
    return found


_CONVERT = """\
{file} holds an object of {code}, that is code, which is not run here. If you trust the file, take \
the weights out of it where that package is installed:
  python -c "import torch; it = torch.load('{file}', map_location='cpu', weights_only=False); \
torch.save(it.state_dict() if hasattr(it, 'state_dict') else it['state_dict'], 'weights.pt')\""""


def _as_stored(file: Path, weights: Weights) -> Weights:
    """Matrices rounded to half precision, as a bundle keeps them: what is learned on is served.

    Not vectors: the variances of a batch norm may exceed what a half can be.
    """
    stored = {
        name: weight.half().float() if weight.ndim > 1 else weight.float()
        for name, weight in weights.items()
        if weight.is_floating_point()
    }
    broken = [name for name, weight in stored.items() if not torch.isfinite(weight).all()]
    if broken:
        raise EncoderError(f"{file}: not finite in half precision: {_some(broken)}")
    return stored


def _load(file: Path, network: nn.Module, weights: Weights) -> None:
    """Into the network, if every tensor that it has is there and fits. What it has not is left."""
    wanted = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    missing = [name for name in wanted if name not in weights]
    if missing:
        of = f"{len(missing)} of {len(wanted)} tensors"
        raise EncoderError(f"{file} lacks {of}: {_some(missing)}")
    wrong = [
        f"{name} {tuple(weights[name].shape)}, not {shape}"
        for name, shape in wanted.items()
        if tuple(weights[name].shape) != shape
    ]
    if wrong:
        raise EncoderError(f"{file}: tensors of another shape: {_some(wrong)}")
    network.load_state_dict(weights, strict=False)


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
