"""A BERT as the encoder of notes: features, tokenizer, and errors for broken folders."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertModel

from model.representations.bert import read_bert
from model.representations.bert_tokenizer import read_tokenizer
from model.representations.weight_files import EncoderError
from schemas.features import extract_features
from schemas.payload import as_payload
from tests.support.inputs.pretrained_files import LONGEST, WORDS, old_bert_folder, spec_of

CLS, SEP = WORDS.index("[CLS]"), WORDS.index("[SEP]")
CHUNK = LONGEST - 2


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


def encode_note(texts, spec):
    notes = [
        {"kind": "nursing", "time": f"2031-05-04T0{i}:00:00Z", "text": t}
        for i, t in enumerate(texts)
    ]
    payload = as_payload({"as_of": "2031-05-04T12:00:00Z", "notes": notes})
    return extract_features(payload, spec).arrays["notes"]["tokens"]


def test_notes_become_the_berts_tokens_with_one_separator_each(folder):
    spec = spec_of(folder)
    text = "Fever and the fever. " * 50
    found = [WORDS[i] for i in encode_note([text, "the"], spec)]
    assert found == ["Fever", "and", "the", "fever", "."] * 50 + ["[SEP]", "the", "[SEP]"]
    assert spec.vocabulary == len(WORDS)


def test_the_text_of_a_special_token_does_not_become_one(folder):
    found = encode_note(["the [PAD] the [SEP] the [CLS]"], spec_of(folder)).tolist()
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
    "is not a safetensors file": lambda f: (f / "model.safetensors").write_bytes(b"not weights"),
    "config.json is not JSON": lambda f: (f / "config.json").write_text("{"),
    "tokenizer.json is not a tokenizer": lambda f: (f / "tokenizer.json").write_text("{}"),
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
