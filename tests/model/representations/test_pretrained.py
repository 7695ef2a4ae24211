"""A cohort must be made for the pretrained encoders that are used."""

import shutil

import pytest
import torch

from model.representations.pretrained import read_encoders
from model.representations.weight_files import EncoderError
from schemas.features import FeatureSpec
from tests.support.inputs.pretrained_files import densenet, spec_of


def test_a_cohort_made_for_another_encoder_is_refused_with_the_command(folder, tmp_path):
    torch.save(densenet(1).state_dict(), tmp_path / "x.pt")
    notes, image = (str(folder), "pixels"), ("words", str(tmp_path / "x.pt"))
    plain = FeatureSpec.default()
    with pytest.raises(EncoderError, match=rf"cohort … --tokenizer {folder}"):
        read_encoders(*notes, plain)
    with pytest.raises(EncoderError, match=r"128 pixels.* cohort … --image-side 224"):
        read_encoders(*image, plain)
    with pytest.raises(EncoderError, match="--tokenizer"):  # a BERT has no ids for phrases
        read_encoders(*notes, spec_of(folder).model_copy(update={"phrases": 10}))
    matching = spec_of(folder).model_copy(update={"image_side": 224})
    assert read_encoders(*notes, matching).keys() == {"notes"}
    assert read_encoders(*image, matching).keys() == {"image"}
    assert not read_encoders("words", "pixels", plain)


def test_the_tokenizer_of_another_bert_is_refused(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"lowercase": false', '"lowercase": true'))
    with pytest.raises(EncoderError, match="another tokenizer than that of"):
        read_encoders(str(other), "pixels", spec_of(folder))
