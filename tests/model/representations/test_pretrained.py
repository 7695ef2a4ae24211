"""Pretrained encoders are read from common files; errors name the fault and the fix."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertModel

from model.representations.bert import read_bert
from model.representations.bert_tokenizer import read_tokenizer
from model.representations.densenet import DenseNet, DenseNetFacts, read_densenet
from model.representations.pretrained import read_encoders
from model.representations.weight_files import EncoderError
from schemas.features import FeatureSpec, features
from schemas.payload import as_payload
from tests.support.pretrained_files import (
    LONGEST,
    OLD_FORMAT,
    WORDS,
    as_chexnet,
    bert_folder,
    densenet,
    old_bert_folder,
)

CLS, SEP = WORDS.index("[CLS]"), WORDS.index("[SEP]")
CHUNK = LONGEST - 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("bert") / "ClinicalBERT")


@pytest.fixture(scope="module")
def bert(folder):
    return read_bert(folder)


@pytest.fixture(scope="module")
def reference(folder, bert):
    """The same BERT in transformers, with weights in half precision as in a bundle."""
    network = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()

    @torch.no_grad()
    def mean_of(tokens):
        given = torch.cat([torch.tensor([CLS]), tokens, torch.tensor([SEP])])
        return network(input_ids=given[None]).last_hidden_state[0, 1:-1].mean(0)

    return mean_of


def tokens_of(*lengths, seed=0):
    """[B, longest] random tokens, padded with 0 at the end; none of them special."""
    draw = torch.Generator().manual_seed(seed)
    rows = [torch.randint(5, len(WORDS), (n,), generator=draw) for n in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def images(count=3, side=64):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, side, side), generator=draw).to(torch.uint8)


# Notes


def test_a_bert_has_the_hidden_states_of_transformers(bert, reference):
    (note,) = tokens_of(9)
    features = bert.embed(note[None])[0]
    torch.testing.assert_close(features, torch.cat([reference(note)] * 2), atol=1e-5, rtol=0)


def test_an_old_folder_gives_the_same_encoder(folder, bert, tmp_path):
    old = read_bert(old_bert_folder(tmp_path / "old"))
    torch.testing.assert_close(old(tokens_of(5, 40)), bert(tokens_of(5, 40)))
    assert read_tokenizer(tmp_path / "old") == read_tokenizer(folder)


def test_a_long_note_is_the_mean_and_maximum_of_equal_chunks(bert, reference):
    (note,) = tokens_of(3 * CHUNK - 6)
    chunks = torch.stack([reference(chunk) for chunk in note.split(CHUNK - 2)])
    assert len(chunks) == 3
    expected = torch.cat([chunks.mean(0), chunks.amax(0)])
    torch.testing.assert_close(bert.embed(note[None])[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, CHUNK, CHUNK + 1, 10 * CHUNK + 3])
def test_the_last_token_of_a_note_has_an_effect(bert, length):
    one = tokens_of(length)
    other = one.clone()
    other[0, -1] = 5 if one[0, -1] != 5 else 6
    assert not torch.equal(bert(one)[0, :32], bert(other)[0, :32])


def test_padding_has_no_effect(bert):
    alone = [bert(tokens_of(n, seed=n))[0] for n in (3, CHUNK + 2, 500)]
    together = torch.nn.utils.rnn.pad_sequence(
        [tokens_of(n, seed=n)[0] for n in (3, CHUNK + 2, 500)], batch_first=True
    )
    padded = torch.nn.functional.pad(together, (0, 37))
    torch.testing.assert_close(bert(together), torch.stack(alone), atol=1e-5, rtol=0)
    torch.testing.assert_close(bert(padded), torch.stack(alone), atol=1e-5, rtol=0)


def test_an_empty_note_has_features_0(bert):
    assert torch.equal(bert(torch.zeros(2, 40, dtype=torch.long)), torch.zeros(2, 64))


def test_a_separator_at_the_end_of_a_note_is_not_doubled(bert, folder):
    """BERT was not trained on two adjacent separators."""
    network = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    network.load_state_dict(bert.bert.state_dict())
    note = torch.cat([tokens_of(6)[0], torch.tensor([SEP])])
    with torch.no_grad():
        given = torch.cat([torch.tensor([CLS]), note])
        expected = network(input_ids=given[None]).last_hidden_state[0, 1:].mean(0)
    torch.testing.assert_close(bert.embed(note[None])[0, :32], expected, atol=1e-5, rtol=0)


def test_features_are_scaled_by_the_training_patients(folder):
    bert = read_bert(folder)
    notes = [tokens_of(*range(3, 20), seed=s) for s in range(5)]
    bert.fit(notes)
    features = torch.cat([bert(batch) for batch in notes])
    assert features.median(dim=0).values.abs().max() < 1e-4
    assert 0.3 < features.std() < 1.5


def test_a_frozen_encoder_never_trains(folder):
    bert = read_bert(folder).train()
    assert not any(part.training for part in bert.modules())
    assert not any(parameter.requires_grad for parameter in bert.parameters())


# Its tokenizer


def spec_of(folder):
    return FeatureSpec.default().model_copy(
        update={"tokenizer_json": read_tokenizer(folder), "phrases": 0}
    )


def note_tokens(texts, spec):
    notes = [
        {"kind": "nursing", "time": f"2031-05-04T0{i}:00:00Z", "text": t}
        for i, t in enumerate(texts)
    ]
    payload = as_payload({"as_of": "2031-05-04T12:00:00Z", "notes": notes})
    return features(payload, spec).arrays["notes"]["tokens"]


def test_notes_become_the_berts_tokens_with_one_separator_each(folder):
    spec = spec_of(folder)
    text = "Fever and the fever. " * 50
    found = [WORDS[i] for i in note_tokens([text, "the"], spec)]
    assert found == ["Fever", "and", "the", "fever", "."] * 50 + ["[SEP]", "the", "[SEP]"]
    assert spec.vocabulary == len(WORDS)


def test_the_text_of_a_special_token_does_not_become_one(folder):
    found = note_tokens(["the [PAD] the [SEP] the [CLS]"], spec_of(folder)).tolist()
    assert not {0, CLS} & set(found)
    assert found.count(SEP) == 1
    assert found[-1] == SEP


@pytest.mark.parametrize(
    ("words", "do_lower_case", "expected"),
    [
        (WORDS, None, "Fever"),  # the words have capitals
        ([w for w in WORDS if w == w.lower() or w[0] == "["], None, "fever"),
        (WORDS, True, "fever"),
        (WORDS, False, "Fever"),
    ],
)
def test_case_matters_if_configured_or_if_the_vocabulary_has_capitals(
    tmp_path, words, do_lower_case, expected
):
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    if do_lower_case is not None:
        config = json.dumps({"do_lower_case": do_lower_case})
        (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
    tokenizer = Tokenizer.from_str(read_tokenizer(tmp_path))
    assert tokenizer.encode("Fever").tokens == [expected]


# Images


@pytest.mark.parametrize("channels", [1, 3])
def test_all_file_formats_give_the_same_encoder(tmp_path, channels):
    network = densenet(channels)
    weights = network.state_dict()
    files = {name: tmp_path / name for name in ("tv.pth", "x.pth.tar", "old.pt", "x.safetensors")}
    torch.save(weights, files["tv.pth"])
    torch.save(as_chexnet(network), files["x.pth.tar"], **OLD_FORMAT)
    torch.save({"model": as_chexnet(network)["state_dict"]}, files["old.pt"])
    save_file(weights, files["x.safetensors"])
    features = [read_densenet(file)(images()) for file in files.values()]
    assert all(torch.equal(one, features[0]) for one in features)
    assert features[0].std() > 0
    facts = read_densenet(files["x.pth.tar"]).facts
    assert (facts.channels, facts.initial, facts.growth) == (channels, 32, 8)
    assert (facts.bottleneck, facts.blocks) == (16, (1, 2, 1))


@pytest.mark.parametrize(
    ("channels", "black", "white"),
    [
        (1, [-1024.0], [1024.0]),  # torchxrayvision
        (3, [-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.6400]),  # ImageNet, so CheXNet
    ],
)
def test_grey_values_are_scaled_as_in_the_pretraining(tmp_path, channels, black, white):
    torch.save(densenet(channels).state_dict(), tmp_path / "x.pt")
    encoder = read_densenet(tmp_path / "x.pt")
    seen = []
    encoder.features.conv0.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for shade, expected in ((0, black), (255, white)):
        encoder(torch.full((1, 1, 32, 32), shade, dtype=torch.uint8))
        torch.testing.assert_close(
            seen[-1][0, :, 16, 16], torch.tensor(expected), atol=1e-3, rtol=1e-4
        )


def test_a_densenet_121_has_as_many_weights_as_torchvisions():
    facts = DenseNetFacts(
        name="",
        digest="",
        channels=3,
        initial=64,
        growth=32,
        bottleneck=128,
        blocks=(6, 12, 24, 16),
    )
    encoder = DenseNet(facts)
    # 7,978,856 with the classifier of 1,000 classes.
    assert sum(p.numel() for p in encoder.features.parameters()) == 7_978_856 - 1_025_000
    assert encoder.width == 1024


def test_matrices_are_rounded_to_half_precision_and_variances_are_not(tmp_path):
    network = densenet(1)
    torch.save(network.state_dict(), tmp_path / "x.pt")
    found = read_densenet(tmp_path / "x.pt").features.state_dict()
    for name, given in network.features.state_dict().items():
        expected = given.half().float() if given.ndim > 1 else given
        assert torch.equal(found[name], expected), name
    assert found["norm0.running_var"].max() > 65504  # the largest half


def test_a_pickled_network_is_refused_with_a_command_to_save_its_weights(tmp_path):
    network, file = densenet(1), tmp_path / "xrv.pt"
    torch.save(network, file)
    with pytest.raises(EncoderError, match=r"PickledDenseNet.*never runs code") as e:
        read_densenet(file)
    command = re.search(r"-c \"(.*)\"", str(e.value)).group(1)
    command = command.replace("'weights.pt'", f"'{tmp_path / 'weights.pt'}'")
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", command], cwd=root, check=True)
    torch.save(network.state_dict(), tmp_path / "expected.pt")
    found, expected = (read_densenet(tmp_path / n) for n in ("weights.pt", "expected.pt"))
    assert torch.equal(found(images()), expected(images()))


class Malicious:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, tmp_path / "x.pt")
    with pytest.raises(EncoderError, match="never runs code"):
        read_densenet(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


# Errors


def without(name):
    def change(folder):
        (folder / name).unlink()

    return change


def config_with(**changed):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changed))

    return change


def other_weights(edit):
    def change(folder):
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors")

    return change


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
BROKEN_BERTS = {
    "has no config.json": without("config.json"),
    "neither tokenizer.json nor vocab.txt": without("tokenizer.json"),
    "neither model.safetensors nor pytorch_model.bin": without("model.safetensors"),
    "model_type is 'roberta'; it must be 'bert'": config_with(model_type="roberta"),
    "position_embedding_type must be 'absolute'": config_with(
        position_embedding_type="relative_key"
    ),
    "hidden_size": config_with(hidden_size=None),
    f"the tokenizer has {len(WORDS)} tokens, but config.json allows 50": config_with(vocab_size=50),
    r"lacks 16 of \d+ tensors: encoder.layer.2.attention": config_with(num_hidden_layers=3),
    r"lacks 1 of \d+ tensors: encoder.layer.1.attention.self.query.weight": other_weights(
        lambda weights: weights.pop(QUERY)
    ),
    r"another shape: encoder.layer.1.attention.self.query.weight \(32, 16\), not \(32, 32\)": (
        other_weights(lambda w: w.update({QUERY: w[QUERY][:, :16].contiguous()}))
    ),
    "not finite in half precision: encoder.layer.1.attention.self.query.weight": other_weights(
        lambda w: w[QUERY].fill_(1e5)
    ),
    "is no safetensors file": lambda f: (f / "model.safetensors").write_bytes(b"not weights"),
    "config.json is not JSON": lambda f: (f / "config.json").write_text("{"),
    "tokenizer.json is no tokenizer": lambda f: (f / "tokenizer.json").write_text("{}"),
}


@pytest.mark.parametrize("expected", BROKEN_BERTS)
def test_a_broken_bert_folder_is_refused(folder, tmp_path, expected):
    broken = shutil.copytree(folder, tmp_path / "broken")
    BROKEN_BERTS[expected](broken)
    with pytest.raises(EncoderError, match=expected):
        read_bert(broken)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(EncoderError, match=r"there is no folder .*nowhere"):
        read_bert(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (WORDS[1:] + WORDS[:1], r"\[PAD\] has the id \d+; it must have 0"),
        (WORDS[:3] + WORDS[4:], r"a BERT needs \[SEP\]"),
    ],
)
def test_a_vocabulary_without_a_berts_special_tokens_is_refused(tmp_path, words, expected):
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    with pytest.raises(EncoderError, match=expected):
        read_tokenizer(tmp_path)


def resnet(weights):
    return {"conv1.weight": torch.zeros(8, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(8, 8)}


def without_a_layer(weights):
    return {n: w for n, w in weights.items() if "denseblock2.denselayer1." not in n}


def wider(weights):
    name = "features.denseblock2.denselayer2.conv1.weight"
    return weights | {name: torch.zeros(16, 99, 1, 1)}


def of_two_channels(weights):
    return weights | {"features.conv0.weight": torch.zeros(32, 2, 7, 7)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (resnet, r"is no DenseNet: .*it has conv1.weight, layer1.0.conv1.weight"),
        (without_a_layer, r"lacks 10 of \d+ tensors: denseblock2.denselayer1.norm1.weight"),
        (wider, r"denseblock2.denselayer2.conv1.weight \(16, 99, 1, 1\), not \(16, 28, 1, 1\)"),
        (of_two_channels, "reads 2 channels; it must read 1 or 3"),
        (lambda _: torch.zeros(3), "holds no named tensors"),
        (lambda _: {}, "holds no named tensors"),
    ],
)
def test_a_broken_densenet_file_is_refused(tmp_path, change, expected):
    torch.save(change(densenet(3).state_dict()), tmp_path / "x.pt")
    with pytest.raises(EncoderError, match=expected):
        read_densenet(tmp_path / "x.pt")


def test_a_file_without_weights_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"a text")
    with pytest.raises(EncoderError, match="neither a torch nor a safetensors file"):
        read_densenet(tmp_path / "x.pt")
    with pytest.raises(EncoderError, match="there is no file"):
        read_densenet(tmp_path / "y.pt")


# A cohort of another encoder


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
