from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt
from sklearn.datasets import load_digits

from kdplugin.datasets.digit_drawing import (
    AMBIGUOUS,
    SceneSettings,
    digit_images,
    draw_background,
    draw_scene,
    render_digit,
    split_digits,
)
from kdplugin.errors import ConfigError

TRAIN, VAL = split_digits(0)


def scene(seed: int = 0, size: int = 160, **settings):
    return draw_scene(np.random.default_rng(seed), TRAIN, size, SceneSettings(**settings))


def test_split_uses_every_digit_once_and_keeps_the_class_shares():
    target = load_digits().target
    assert sorted(np.concatenate(TRAIN + VAL)) == list(range(1797))
    for digit, (train, val) in enumerate(zip(TRAIN, VAL, strict=True)):
        assert set(target[train]) == set(target[val]) == {digit}
        assert len(val) / (len(train) + len(val)) == pytest.approx(0.2, abs=0.005)


def test_no_digit_of_the_val_split_looks_exactly_like_a_training_digit():
    images = digit_images().reshape(1797, -1)
    train = {images[index].tobytes() for index in np.concatenate(TRAIN)}
    assert not any(images[index].tobytes() in train for index in np.concatenate(VAL))


def test_split_depends_on_the_seed():
    np.testing.assert_array_equal(split_digits(0)[1][3], VAL[3])
    assert not np.array_equal(split_digits(1)[1][3], VAL[3])


def test_a_quarter_turn_equals_rot90():
    upright = render_digit(digit_images()[7], 40, 0, 1.0)
    np.testing.assert_allclose(render_digit(digit_images()[7], 40, 90, 1.0), np.rot90(upright, -1), atol=1e-9)


def test_twice_the_side_is_four_times_the_ink():
    small, large = (render_digit(digit_images()[5], side, 10, 1.0).sum() for side in (30, 60))
    assert large / small == pytest.approx(4, rel=0.02)


def test_the_soft_edge_gets_wider_with_the_setting_and_the_ink_stays():
    sharp, soft = (render_digit(digit_images()[2], 48, 0, edge) for edge in (0.5, 2.0))
    count = [int(((alpha > 0) & (alpha < 1)).sum()) for alpha in (sharp, soft)]
    assert count[1] > 2.5 * count[0]
    assert soft.sum() == pytest.approx(sharp.sum(), rel=0.03)


def test_every_digit_has_a_clear_stroke_at_the_smallest_size():
    assert min((render_digit(image, 16, 10, 1.0) >= 0.7).sum() for image in digit_images()) > 20


def test_the_same_rng_draws_the_same_scene():
    first, second = scene(3), scene(3)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.semantic, second.semantic)
    assert not np.array_equal(first.image, scene(4).image)


@pytest.mark.parametrize('seed', range(5))
def test_digits_keep_their_number_their_size_and_their_distance(seed):
    drawn = scene(seed, digits=(2, 4), digit_size=(30, 40), rotation=0, gap=4)
    assert 2 <= len(drawn.instances) <= 4
    for instance in drawn.instances:
        assert 24 <= np.ptp(np.flatnonzero(instance.mask.any(1))) + 1 <= 44
    for one, other in combinations(drawn.instances, 2):
        assert distance_transform_edt(~one.mask)[other.mask].min() > 4


def test_semantic_mask_is_the_instances_plus_a_thin_ambiguous_edge():
    drawn = scene(1)
    expected = sum(np.where(item.mask, item.digit + 1, 0) for item in drawn.instances)
    ambiguous = drawn.semantic == AMBIGUOUS
    np.testing.assert_array_equal(np.where(ambiguous, 0, drawn.semantic), expected)
    assert ambiguous.any()
    assert not (ambiguous & ~binary_dilation(expected > 0, np.ones((3, 3)), iterations=2)).any()


@pytest.mark.parametrize('contrast', [0.2, 0.4])
def test_contrast_is_the_step_in_brightness_at_the_stroke(contrast):
    plain = {'texture': (0.001, 0.001), 'grain': 0.0, 'tint': 0.0, 'contrast': (contrast, contrast)}
    steps = []
    for seed in range(6):
        drawn = scene(seed, **plain)
        brightness = drawn.image.mean(2) / 255
        for item in drawn.instances:
            near = binary_dilation(item.mask, iterations=8) & (drawn.semantic == 0)
            steps.append(abs(brightness[item.mask].mean() - brightness[near].mean()))
    assert np.mean(steps) == pytest.approx(contrast, rel=0.1)


def test_texture_is_the_deviation_of_the_background():
    rng = [np.random.default_rng(0) for _ in range(2)]
    flat, rough = (draw_background(r, 96, SceneSettings(texture=(t, t))) for r, t in zip(rng, (0.0, 0.1), strict=True))
    assert (rough - flat).std() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('digits', (5, 2), r'Expected digits as a range MIN MAX with 1 <= MIN <= MAX but got 5 2\.'),
        ('digits', (0, 2), r'with 1 <= MIN <= MAX but got 0 2\. Correct digits\.'),
        ('digit_size', (8, 64), r'Expected digit_size .* with 16 <= MIN <= MAX but got 8 64\.'),
        ('contrast', (-0.1, 0.5), r'Expected contrast .* but got -0\.1 0\.5\.'),
        ('texture', (0.2, 0.1), r'Expected texture .* but got 0\.2 0\.1\.'),
    ],
)
def test_impossible_ranges_are_refused(name, value, message):
    with pytest.raises(ConfigError, match=message):
        SceneSettings(**{name: value})


def test_no_room_is_an_error():
    with pytest.raises(ConfigError, match=r'Expected room for 9 digits of at least 40 px in a scene of 64 px'):
        scene(size=64, digits=(9, 9), digit_size=(40, 40))
