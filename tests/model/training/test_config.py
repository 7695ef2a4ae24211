"""What a configuration file may say, and what is told of one that cannot be read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.training.config import ConfigError, TrainConfig, read_choices, read_config


def fault_of(path):
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = = 3", "line 1, column 10"),
        ("members = 2\n[net\nwidth = 8", "line 2"),
        ('members = 2\nseed = "', "line 2"),
        ("epochs = 3\nepochs = 4", "line 2"),
        ("epoch = 3", "epoch is not known; the nearest is epochs"),
        ("learning-rate = 0.1", "learning-rate is not known; the nearest is learning_rate"),
        ("[net]\nwidht = 8", "net.widht is not known; the nearest is net.width"),
        ("width = 8", "width is not known; the nearest is net.width"),
        ("[net]\nepochs = 8", "net.epochs is not known; the nearest is epochs"),
        ("xyzzy = 1", "xyzzy is not known"),
        ("[train]\nepochs = 3", "train is not known"),
        ('epochs = "3"', "epochs: Input should be a valid integer"),
        ("epochs = true", "epochs: Input should be a valid integer"),
        ("epochs = 3.5", "epochs: Input should be a valid integer"),
        ("epochs = 2026-01-01", "epochs: Input should be a valid integer"),
        ("epochs = [3]", "epochs: Input should be a valid integer"),
        ("members = 0", "members: Input should be greater than or equal to 1"),
        ("learning_rate = nan", "learning_rate: Input should be"),
        ("learning_rate = inf", "learning_rate: Input should be less than or equal to 1"),
        ("averaging = 1.0", "averaging: Input should be less than 1"),
        ("net = 3", "net: "),
        ("[net]\nimage_channels = [12]", "net.image_channels.0: Input should be a multiple of 8"),
        ("[net]\nimage_channels = []", "net.image_channels: "),
        ('[net]\nattention = "fair"', "net.attention: Input should be 'balanced'"),
        ("[loss_weights]\nbinari = 1.0", "the kinds of tasks are binary, multiclass"),
        ("[loss_weights]\nbinary = -1.0", "loss_weights.binary: Input should be greater"),
    ],
)
def test_a_fault_is_one_line_that_names_the_file_and_the_place(text, said, tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(text)
    assert said in fault_of(path)


def test_every_fault_is_named(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text('epoch = 3\nmembers = "two"\n[net]\nwidht = 1')
    said = fault_of(path)
    assert all(name in said for name in ("epoch is not", "members: ", "net.widht is not"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(make, said, tmp_path):
    make(tmp_path / "train.toml")
    assert said in fault_of(tmp_path / "train.toml")


def test_what_a_file_does_not_name_keeps_its_default(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(
        "learning_rate = 1\n[loss_weights]\nbinary = 2.0\n"
        "[net]\nimage_channels = [8, 16]\ninput_dropout = {notes = 0.5}\n"
    )
    config, default = read_config(path), TrainConfig()
    assert config.learning_rate == 1.0
    assert config.loss_weights == default.loss_weights | {"binary": 2.0}
    assert config.net.image_channels == (8, 16)
    assert config.net.input_dropout == default.net.input_dropout | {"notes": 0.5}
    assert config.epochs == default.epochs
    assert read_config(None) == default


def test_every_default_can_be_written_into_a_file(tmp_path):
    """As TOML has it: what JSON writes of numbers, texts and lists is TOML."""
    raw = TrainConfig().model_dump(mode="json")
    lines = [f"{k} = {json.dumps(v)}" for k, v in raw.items() if not isinstance(v, dict)]
    for table, values in [("net", raw["net"]), ("loss_weights", raw["loss_weights"])]:
        lines += [f"[{table}]"]
        lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if not isinstance(v, dict)]
    path = tmp_path / "train.toml"
    path.write_text("\n".join(lines))
    assert read_config(path) == TrainConfig()


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["epochs = 3\n", "[net]\n", "width", " = ", "8\n", '"'])).map(
        "".join
    )
)
def test_whatever_is_in_a_file_is_read_or_told_in_one_line(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("config") / "train.toml"
    path.write_text(text, encoding="utf-8")
    told = ""
    try:
        read_config(path)
    except ConfigError as error:
        told = str(error)
    assert "\n" not in told


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"m3h": 3}', '{"m3h": {"all": {"external": "x"}}}', "\ud800"]
)
def test_choices_that_cannot_be_read_are_told_in_one_line(text, tmp_path):
    path = tmp_path / "tuned.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigError, match="no output of 'm3h-model tune'") as caught:
        read_choices(path)
    assert "\n" not in str(caught.value)
