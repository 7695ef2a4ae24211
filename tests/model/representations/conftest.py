"""A small random BERT in a Hugging Face folder."""

import pytest

from tests.support.inputs.pretrained_files import bert_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert") / "ClinicalBERT")
