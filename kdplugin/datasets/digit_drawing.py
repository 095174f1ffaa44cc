"""Draw one scene of handwritten digits: textured background, strokes, semantic mask, instance masks.

Shapes: H, W image height and width (equal here), h, w patch around one digit, 3 colour channels.
Colours are floats in [0, 1] until the image is rounded to uint8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, binary_dilation, zoom
from sklearn.datasets import load_digits

from kdplugin.errors import ConfigError

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
AMBIGUOUS = 255
CLEAR_BACKGROUND, CLEAR_STROKE = 0.3, 0.7  # opacities between the two are ambiguous
CELLS = 8  # side of a scikit-learn digit
MARGIN = 2  # empty cells around it, so that a rotated stroke is not cut
VAL_SHARE = 0.2

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SceneSettings:
    """The difficulty of the scenes; every pair is an inclusive range that is sampled uniformly.

    Args:
        digits: Digits per scene.
        digit_size: Side in pixels of the 8x8 frame a digit is written in; the digit fills its height.
        rotation: Largest rotation in degrees, to either side.
        contrast: Difference between the stroke's brightness and the mean background beneath it.
        tint: Largest deviation of each stroke channel from grey contrast.
        texture: Standard deviation of the background's noise.
        grain: Standard deviation of the noise that is added to every pixel at the end.
        edge: Width in pixels of the soft edge of a stroke.
        gap: Least distance in pixels between the strokes of two digits: they never overlap.

    Raises:
        ConfigError: If a range is reversed or outside what can be drawn.
    """

    digits: tuple[int, int] = (2, 5)
    digit_size: tuple[float, float] = (28.0, 64.0)
    rotation: float = 15.0
    contrast: tuple[float, float] = (0.25, 0.6)
    tint: float = 0.15
    texture: tuple[float, float] = (0.02, 0.1)
    grain: float = 0.02
    edge: float = 1.0
    gap: int = 2

    def __post_init__(self) -> None:
        floors = {'digits': 1, 'digit_size': 2 * CELLS, 'contrast': 0, 'texture': 0}
        for name, floor in floors.items():
            low, high = getattr(self, name)
            if not floor <= low <= high:
                raise ConfigError(
                    f'Expected {name} as a range MIN MAX with {floor} <= MIN <= MAX but got {low} {high}. '
                    f'Correct {name}.'
                )


@dataclass(frozen=True)
class Instance:
    """One drawn digit: class (0 to 9), index of its scikit-learn image, mask [H, W] of its clear stroke."""

    digit: int
    source: int
    mask: Bools


@dataclass(frozen=True)
class Placement:
    """A digit that found room: its opacity [h, w] and the window of the scene [H, W] where it goes."""

    digit: int
    source: int
    alpha: Floats
    window: tuple[slice, slice]


@dataclass(frozen=True)
class Scene:
    """An image [H, W, 3], its semantic mask [H, W] (0, digit + 1, 255) and its digits."""

    image: NDArray[np.uint8]
    semantic: NDArray[np.uint8]
    instances: tuple[Instance, ...]


@lru_cache(maxsize=1)
def digit_images() -> Floats:
    """Ink coverage in [0, 1] of scikit-learn's 1797 handwritten digits, [1797, 8, 8]."""
    return load_digits().images / 16.0


def split_digits(seed: int) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Split the indices of each class into train (80 %) and val (20 %), as two lists of ten index arrays."""
    rng = np.random.default_rng([seed, 2])
    target = load_digits().target
    train, val = [], []
    for digit in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(target == digit))
        count = round(VAL_SHARE * len(members))
        val.append(np.sort(members[:count]))
        train.append(np.sort(members[count:]))
    return train, val


def draw_scene(rng: np.random.Generator, pools: list[NDArray[np.int64]], size: int, settings: SceneSettings) -> Scene:
    """Draw one scene from the digits in ``pools`` (indices by class).

    Args:
        rng: The only source of chance.
        pools: Ten arrays of indices into ``digit_images()``.
        size: Side of the square scene in pixels.
        settings: The difficulty.

    Raises:
        ConfigError: If the least number of digits finds no room.
    """
    for _ in range(20):
        placed = _place_digits(rng, pools, size, settings)
        if len(placed) >= settings.digits[0]:
            break
    else:
        raise ConfigError(
            f'Expected room for {settings.digits[0]} digits of at least {settings.digit_size[0]} px in a '
            f'scene of {size} px but got none in 20 attempts. Ask for fewer or smaller digits.'
        )
    image = draw_background(rng, size, settings)
    semantic = np.zeros((size, size), np.uint8)
    instances = []
    for item in placed:
        _paint(rng, image[item.window], item.alpha, settings)
        mask = np.zeros((size, size), bool)
        mask[item.window] = item.alpha >= CLEAR_STROKE
        semantic[item.window][item.alpha > CLEAR_BACKGROUND] = AMBIGUOUS
        semantic[mask] = item.digit + 1
        instances.append(Instance(item.digit, item.source, mask))
    image += rng.normal(0, settings.grain, image.shape)
    return Scene((image.clip(0, 1) * 255).round().astype(np.uint8), semantic, tuple(instances))


def draw_background(rng: np.random.Generator, size: int, settings: SceneSettings) -> Floats:
    """A gradient between two colours plus four octaves of smooth noise, [H, W, 3]."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    angle = rng.uniform(0, 2 * math.pi)
    ramp = (0.5 + (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2))[..., None]
    first, second = rng.uniform(0.15, 0.85, (2, 3))
    noise = np.zeros((size, size, 3))
    for octave in range(4):
        cells = 4 * 2**octave
        grid = rng.normal(size=(3, cells, cells)) * 0.5 + rng.normal(size=(cells, cells))
        upsample = _upsampling(cells, size)
        noise += 0.6**octave * (upsample @ grid @ upsample.T).transpose(1, 2, 0)
    noise *= rng.uniform(*settings.texture) / noise.std()
    return first * (1 - ramp) + second * ramp + noise


def render_digit(coverage: Floats, side: float, degrees: float, edge: float) -> Floats:
    """Enlarge a digit smoothly and turn it; opacity in [0, 1], [h, w], cropped to what is not transparent.

    A cubic spline through the ink coverage is cut at 0.45, with a ramp of about ``edge`` pixels.
    """
    padded = np.pad(coverage, MARGIN)
    cells, out = len(padded), math.ceil(side * (CELLS + 2 * MARGIN) / CELLS)
    turn = math.radians(degrees)
    matrix = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) * CELLS / side
    offset = (cells - 1) / 2 - matrix @ np.full(2, (out - 1) / 2)
    smooth = affine_transform(padded, matrix, offset, (out, out), order=3)
    alpha = ((smooth - 0.45) * side / CELLS / edge + 0.5).clip(0, 1)
    rows, columns = (np.flatnonzero(alpha.any(axis)) for axis in (1, 0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@lru_cache(maxsize=32)
def _upsampling(cells: int, size: int) -> Floats:
    """Cubic spline interpolation as a matrix [size, cells]: a spline is linear in its knots."""
    return zoom(np.eye(cells), (size / cells, 1), order=3)


def _place_digits(
    rng: np.random.Generator, pools: list[NDArray[np.int64]], size: int, settings: SceneSettings
) -> list[Placement]:
    """Choose digits and find room for them; a digit that finds none is made smaller, at last left out."""
    placed: list[Placement] = []
    taken = np.zeros((size, size), bool)
    for _ in range(rng.integers(settings.digits[0], settings.digits[1], endpoint=True)):
        digit = int(rng.integers(len(CLASSES)))
        source = int(rng.choice(pools[digit]))
        degrees = rng.uniform(-settings.rotation, settings.rotation)
        side = settings.digit_size[1]
        for _ in range(4):
            side = rng.uniform(settings.digit_size[0], side)
            patch = np.pad(render_digit(digit_images()[source], side, degrees, settings.edge), settings.gap)
            window = _find_room(rng, patch > 0, taken)
            if window is not None:
                placed.append(Placement(digit, source, patch, window))
                taken[window] |= _dilate(patch > 0, settings.gap)
                break
    return placed


def _dilate(stroke: Bools, pixels: int) -> Bools:
    return binary_dilation(stroke, iterations=pixels) if pixels else stroke


def _find_room(rng: np.random.Generator, stroke: Bools, taken: Bools, attempts: int = 30) -> tuple[slice, slice] | None:
    """A random window of the scene where a stroke [h, w] meets nothing taken [H, W]."""
    (height, width), (rows, columns) = stroke.shape, taken.shape
    if height > rows or width > columns:
        return None
    for _ in range(attempts):
        top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
        window = slice(top, top + height), slice(left, left + width)
        if not (taken[window] & stroke).any():
            return window
    return None


def _paint(rng: np.random.Generator, image: Floats, alpha: Floats, settings: SceneSettings) -> None:
    """Blend a stroke into the image, brighter or darker than what lies beneath it by the drawn contrast."""
    beneath = image[alpha > 0].mean(0)
    brightness, contrast = beneath.mean(), rng.uniform(*settings.contrast)
    fits_above, fits_below = brightness + contrast <= 1, brightness - contrast >= 0
    upwards = rng.random() < 0.5 if fits_above == fits_below else fits_above
    colour = beneath + (contrast if upwards else -contrast) + rng.uniform(-settings.tint, settings.tint, 3)
    weight = alpha[..., None]
    image *= 1 - weight
    image += weight * colour.clip(0, 1)
