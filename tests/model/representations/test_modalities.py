"""Representations of the modalities, and the novelty of an input."""

import numpy as np
import torch

from model.representations.modalities import (
    BagOfWords,
    Pixels,
    SeriesFeatures,
    TabularFeatures,
    select_words,
)
from model.representations.novelty import Novelty


def fitted_words():
    represent = BagOfWords(vocabulary=50, words=20)
    draw = torch.Generator().manual_seed(0)
    notes = [torch.randint(1, 50, (100, 30), generator=draw) for _ in range(3)]
    represent.fit(torch.arange(10, 30), notes)
    return represent


def test_a_note_without_a_used_word_is_represented_by_zeros():
    represent = fitted_words()
    nothing = represent(torch.tensor([[0, 0, 0], [0, 0, 0]]))
    assert torch.equal(nothing, represent(torch.tensor([[3, 4, 0], [5, 5, 40]])))
    assert (nothing == 0).all()


def test_padding_does_not_change_a_note():
    tokens = torch.randint(1, 50, (1, 6))
    padded = torch.nn.functional.pad(tokens, (0, 20))
    torch.testing.assert_close(fitted_words()(tokens), fitted_words()(padded))


def test_a_long_note_is_read_to_its_end():
    tokens = torch.full((1, 100_000), 11)
    tokens[0, -1] = 29
    represent = fitted_words()
    assert not torch.equal(represent(tokens), represent(tokens[:, :-1]))


def test_with_as_many_directions_as_words_distances_are_kept():
    represent = fitted_words()
    one, other = represent(torch.tensor([[10, 11, 12], [10, 11, 13]]))
    distance = BagOfWords.SCALE * 2**0.5
    torch.testing.assert_close((one - other).norm(), torch.tensor(distance), rtol=1e-2, atol=0.0)


def test_notes_without_any_word_to_use_are_represented_by_zeros():
    represent = BagOfWords(vocabulary=50, words=0)
    tokens = torch.randint(1, 50, (30, 8))
    represent.fit(torch.empty(0, dtype=torch.int64), [tokens])
    assert torch.equal(represent(tokens), torch.zeros(30, represent.width))


def test_words_of_few_or_nearly_all_patients_are_not_used():
    share = torch.tensor([0.9, 0.04, 0.05, 0.5, 0.96])
    assert select_words(share, patients=100).tolist() == [2, 3]


def test_a_missing_value_is_the_median_with_indicator_0():
    represent = TabularFeatures(7)
    values = torch.randn(200, 7) * 5 + 3
    represent.fit(values)
    missing = represent(torch.full((1, 7), torch.nan))
    assert (missing == 0).all()
    median = values.median(dim=0).values[None]
    assert (represent(median)[:, 7:] == 1).all()


def test_a_variable_without_training_values_gives_finite_features():
    represent = SeriesFeatures((3, 11), (2, 4))
    statistics = torch.randn(50, 3, 11)
    statistics[:, 1] = torch.nan
    represent.fit(statistics, torch.randn(50, 2, 4))
    assert torch.isfinite(represent(torch.randn(5, 3, 11), torch.randn(5, 2, 4))).all()


def test_novelty_is_uniform_on_training_patients_and_high_on_others():
    draw = torch.Generator().manual_seed(0)
    novelty = Novelty(40)
    training = torch.randn(2000, 5, generator=draw) @ torch.randn(5, 40, generator=draw)
    training += 0.1 * torch.randn(2000, 40, generator=draw)
    novelty.fit(training)
    assert abs(float(novelty(training).mean()) - 0.5) < 0.02
    off_the_directions = training[:20] + torch.randn(20, 40, generator=draw)
    assert (novelty(off_the_directions) > 0.95).all()
    far_along_them = training[:20] * 20
    assert (novelty(far_along_them) > 0.95).float().mean() > 0.8


def test_a_black_image_is_novel_among_x_rays():
    draw = np.random.default_rng(0)
    base = draw.integers(60, 200, (1, 1, 32, 32))
    images = torch.from_numpy((base + draw.normal(size=(200, 1, 32, 32)) * 9).astype(np.uint8))
    novelty = Novelty(Novelty.IMAGE_SIDE**2)
    novelty.fit(Pixels(32)(images))
    assert novelty(torch.zeros(1, 1, 32, 32, dtype=torch.uint8)) == 1


def test_novelty_works_with_few_features():
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    novelty = Novelty(3)
    novelty.fit(x)
    usual, unusual = novelty(torch.stack([x.mean(0), x.mean(0) + 9]))
    assert usual < 0.2
    assert unusual > 0.9
