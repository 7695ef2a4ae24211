"""Small random encoders in the file formats of published ones, made by the same libraries."""

import json
import re
from pathlib import Path
from string import ascii_letters, digits, punctuation

import torch
from torch import nn

from model.representations.bert_tokenizer import read_tokenizer
from model.representations.densenet import DenseNet, DenseNetFacts
from schemas.features import FeatureSpec

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = [*ascii_letters, *digits, *punctuation]
WORDS = [*SPECIAL, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), "Fever", "fever", "and", "the"]
LONGEST = 16  # tokens of a chunk, with [CLS] and [SEP]
SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": LONGEST,
    "initializer_range": 0.3,
}
# The format of torch 0.3, with which CheXNet was saved.
OLD_FORMAT = {"_use_new_zipfile_serialization": False}


def bert_folder(folder: Path) -> Path:
    """A folder as transformers writes it today: model.safetensors, tokenizer.json, heads."""
    from transformers import BertTokenizer

    _bert().save_pretrained(folder)
    tokenizer = BertTokenizer({word: i for i, word in enumerate(WORDS)}, do_lower_case=False)
    tokenizer("and", truncation=True, max_length=LONGEST, padding="max_length")
    tokenizer.save_pretrained(folder)  # which keeps truncation and padding
    return folder


def old_bert_folder(folder: Path) -> Path:
    """A folder like Bio_ClinicalBERT's: pytorch_model.bin, vocab.txt, no configuration of case."""
    folder.mkdir()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): weight
        for name, weight in _bert().state_dict().items()
    }
    torch.save(old, folder / "pytorch_model.bin", **OLD_FORMAT)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(SHAPE | {"hidden_act": "gelu"}))
    return folder


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**SHAPE))


class PickledDenseNet(nn.Module):
    """A pickled network, as torchxrayvision saves it."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(26, 18)


def densenet(channels: int) -> PickledDenseNet:
    """A DenseNet with a classifier, and with norms like those of a trained network."""
    torch.manual_seed(channels)
    facts = DenseNetFacts(
        name="", digest="", channels=channels, initial=32, growth=8, bottleneck=16, blocks=(1, 2, 1)
    )
    network = DenseNet(facts).features
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
            part.weight.uniform_(0.5, 1.5)
    if channels == 1:
        # Grey values from -1024 to 1024 give variances beyond half precision.
        network.norm0.running_var.mul_(1e5)
    return PickledDenseNet(network)


def as_chexnet(network: nn.Module) -> dict[str, object]:
    """A checkpoint of DataParallel, with the names before torchvision 0.2.1."""
    names = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): weight
        for name, weight in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    weights = {f"module.densenet121.{name}": weight for name, weight in names.items()}
    return {"epoch": 3, "state_dict": weights, "best_loss": 0.1}


def spec_of(folder: Path) -> FeatureSpec:
    """The spec of a cohort that is made for the BERT in the folder."""
    update = {"tokenizer_json": read_tokenizer(folder), "phrases": 0, "assertions": ()}
    return FeatureSpec.default().model_copy(update=update)
