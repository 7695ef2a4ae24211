"""Configuration files: values, defaults, and one-line errors."""

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
    ("text", "expected"),
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
        ("[net]\ntrees = {notes = 3}", "the modalities with trees are tabular and series"),
        ("[net]\ntrees = {series = -1}", "net.trees.series: Input should be greater"),
        ("[loss_weights]\nbinari = 1.0", "the kinds of tasks are binary, multiclass"),
        ("[loss_weights]\nbinary = -1.0", "loss_weights.binary: Input should be greater"),
    ],
)
def test_a_fault_is_one_line_with_file_and_position(text, expected, tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(text)
    assert expected in fault_of(path)


def test_all_faults_are_named(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text('epoch = 3\nmembers = "two"\n[net]\nwidht = 1')
    message = fault_of(path)
    assert all(name in message for name in ("epoch is not", "members: ", "net.widht is not"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(make, expected, tmp_path):
    make(tmp_path / "train.toml")
    assert expected in fault_of(tmp_path / "train.toml")


def test_a_setting_that_is_not_named_keeps_its_default(tmp_path):
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


def test_all_defaults_can_be_written_to_a_file(tmp_path):
    """JSON's numbers, strings and lists are valid TOML."""
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
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("config") / "train.toml"
    path.write_text(text, encoding="utf-8")
    message = ""
    try:
        read_config(path)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"m3h": 3}', '{"m3h": {"all": {"external": "x"}}}', "\ud800"]
)
def test_unreadable_choices_are_refused_in_one_line(text, tmp_path):
    path = tmp_path / "tuned.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigError, match="not an output of 'm3h-model tune'") as caught:
        read_choices(path)
    assert "\n" not in str(caught.value)
