"""A representation says what was given, and what was not."""

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


def words():
    represent = BagOfWords(vocabulary=50, words=20)
    draw = torch.Generator().manual_seed(0)
    notes = [torch.randint(1, 50, (100, 30), generator=draw) for _ in range(3)]
    represent.fit(torch.arange(10, 30), notes)
    return represent


def test_a_note_without_a_token_is_one_that_says_nothing_and_not_nan():
    represent = words()
    nothing = represent(torch.tensor([[0, 0, 0], [0, 0, 0]]))
    assert torch.isfinite(nothing).all()
    # Words that are not kept say nothing either; that they are unknown is told.
    torch.testing.assert_close(
        nothing[:, :-1], represent(torch.tensor([[3, 4, 0], [5, 5, 40]]))[:, :-1]
    )


def test_padding_does_not_change_a_note():
    tokens = torch.randint(1, 50, (1, 6))
    padded = torch.nn.functional.pad(tokens, (0, 20))
    torch.testing.assert_close(words()(tokens), words()(padded))


def test_a_note_is_read_to_its_end_however_long_it_is():
    tokens = torch.full((1, 100_000), 11)
    tokens[0, -1] = 29
    represent = words()
    assert not torch.equal(represent(tokens)[:, :-1], represent(tokens[:, :-1])[:, :-1])


def test_no_difference_between_two_notes_is_lost_while_topics_are_as_many_as_words():
    represent = words()
    one, other = represent(torch.tensor([[10, 11, 12], [10, 11, 13]]))[:, :-1]
    distance = BagOfWords.SCALE * 2**0.5
    torch.testing.assert_close((one - other).norm(), torch.tensor(distance), rtol=1e-2, atol=0.0)


def test_the_share_of_unknown_words_is_told():
    assert words()(torch.tensor([[10, 11, 3, 4, 0]]))[0, -1] == 0.5


def test_a_word_of_few_patients_or_of_nearly_all_is_not_looked_at():
    share = torch.tensor([0.9, 0.04, 0.05, 0.5, 0.96])
    assert select_words(share, patients=100).tolist() == [2, 3]


def test_missing_values_are_the_median_and_said_to_be_missing():
    represent = TabularFeatures(7)
    values = torch.randn(200, 7) * 5 + 3
    represent.fit(values)
    missing = represent(torch.full((1, 7), torch.nan))
    assert (missing == 0).all()
    median = values.median(dim=0).values[None]
    assert (represent(median)[:, 7:] == 1).all()


def test_a_variable_that_was_never_measured_in_training_does_no_harm():
    represent = SeriesFeatures((3, 11), (2, 4))
    statistics = torch.randn(50, 3, 11)
    statistics[:, 1] = torch.nan
    represent.fit(statistics, torch.randn(50, 2, 4))
    assert torch.isfinite(represent(torch.randn(5, 3, 11), torch.randn(5, 2, 4))).all()


def test_what_is_unlike_the_training_patients_is_unusual_and_they_are_not():
    draw = torch.Generator().manual_seed(0)
    ordinary = Novelty(40)
    training = torch.randn(2000, 5, generator=draw) @ torch.randn(5, 40, generator=draw)
    training += 0.1 * torch.randn(2000, 40, generator=draw)
    ordinary.fit(training)
    assert abs(float(ordinary(training).mean()) - 0.5) < 0.02
    off_the_directions = training[:20] + torch.randn(20, 40, generator=draw)
    assert (ordinary(off_the_directions) > 0.95).all()
    far_along_them = training[:20] * 20
    assert (ordinary(far_along_them) > 0.95).float().mean() > 0.8


def test_a_black_image_is_unusual_among_x_rays():
    draw = np.random.default_rng(0)
    base = draw.integers(60, 200, (1, 1, 32, 32))
    images = torch.from_numpy((base + draw.normal(size=(200, 1, 32, 32)) * 9).astype(np.uint8))
    ordinary = Novelty(Novelty.IMAGE_SIDE**2)
    ordinary.fit(Pixels(32)(images))
    assert ordinary(torch.zeros(1, 1, 32, 32, dtype=torch.uint8)) == 1


def test_few_features_are_enough_to_tell_what_is_unusual():
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    ordinary = Novelty(3)
    ordinary.fit(x)
    usual, unusual = ordinary(torch.stack([x.mean(0), x.mean(0) + 9]))
    assert usual < 0.2
    assert unusual > 0.9
