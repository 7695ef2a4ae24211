"""Pretrained encoders by name: a BERT for notes, a DenseNet for chest X-rays.

The files are needed once, for training. Afterwards the encoder's facts and the checkpoint's weights
rebuild it.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from tokenizers import Tokenizer

from model.representations.bert import Bert, BertFacts, read_bert
from model.representations.bert_tokenizer import read_tokenizer
from model.representations.densenet import DenseNet, DenseNetFacts, read_densenet
from model.representations.weight_files import EncoderError
from schemas.features import FeatureSpec
from schemas.response import Modality

# The side of the images on which published DenseNets for chest X-rays were trained.
IMAGE_SIDE = 224

Pretrained = Annotated[BertFacts | DenseNetFacts, Field(discriminator="kind")]


def build_encoder(facts: Pretrained) -> Bert | DenseNet:
    """The encoder, without its weights."""
    return Bert(facts) if isinstance(facts, BertFacts) else DenseNet(facts)


def read_encoders(
    notes_encoder: str, image_encoder: str, spec: FeatureSpec
) -> dict[Modality, Bert | DenseNet]:
    """The pretrained encoders that a configuration (`NetConfig`) names.

    Raises EncoderError if the files are unusable, or if the cohort (`spec`) was not made for them.
    """
    encoders: dict[Modality, Bert | DenseNet] = {}
    if notes_encoder != "words":
        folder = Path(notes_encoder).expanduser()
        wanted = read_tokenizer(folder)
        if wanted != Tokenizer.from_str(spec.tokenizer_json).to_str() or spec.phrases:
            raise EncoderError(
                f"the cohort was made with another tokenizer than that of {folder}; make it with "
                f"'m3h-model cohort … --tokenizer {folder}'"
            )
        encoders["notes"] = read_bert(folder)
    if image_encoder != "pixels":
        file = Path(image_encoder).expanduser()
        if spec.image_side < IMAGE_SIDE:
            raise EncoderError(
                f"the cohort's images have sides of {spec.image_side} pixels, but {file} needs "
                f"{IMAGE_SIDE}; make it with 'm3h-model cohort … --image-side {IMAGE_SIDE}'"
            )
        encoders["image"] = read_densenet(file)
    return encoders
