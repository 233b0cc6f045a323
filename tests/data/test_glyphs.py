import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import mlp, train
from jaxnet.data import glyphs

FOUR = """
#..#.
#..#.
#####
...#.
...#.
"""


def move(image, down, right):
    """Returns an image of 25 pixels, moved a pixel at a time."""
    image = np.array(image).reshape(5, 5)
    for axis, by in ((0, down), (1, right)):
        for _ in range(abs(by)):
            image = np.roll(image, np.sign(by), axis)
            image[(slice(None),) * axis + (0 if by > 0 else -1,)] = 0
    return image.ravel()


def moved(shift):
    """Returns label and bytes of every picture: ten digits by (2 shift + 1)**2 moves."""
    moves = list(itertools.product(range(-shift, shift + 1), repeat=2))
    return [
        (label, move(image, *by).astype(bool).tobytes())
        for label, image in enumerate(glyphs.glyphs().inputs)
        for by in moves
    ]


def pictures(split):
    return [
        (label, image.astype(bool).tobytes())
        for label, image in zip(split.labels.tolist(), split.inputs, strict=True)
    ]


def least_distance(shift, other_shift):
    """Returns in how many pixels two digits differ at least, each moved by up to so much."""
    ours, theirs = moved(shift), moved(other_shift)
    return min(
        sum(x != y for x, y in zip(a, b, strict=True))
        for (label, a), (other, b) in itertools.product(ours, theirs)
        if label != other
    )


@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
@pytest.mark.parametrize("is_drawn", [False, True])
def test_form(is_drawn, dtype):
    key = jax.random.key(0)
    split = glyphs.draw(key, 7, dtype=dtype) if is_drawn else glyphs.glyphs(dtype)
    n = len(split.inputs)
    assert split.inputs.shape == (n, 25)
    assert split.targets.shape == (n, 10)
    assert type(split.inputs) is type(split.targets) is np.ndarray
    assert split.inputs.dtype == split.targets.dtype == (dtype or jnp.result_type(float))
    assert set(np.unique(split.inputs)) == set(np.unique(split.targets)) == {0, 1}
    assert (split.targets.sum(axis=1) == 1).all()


def test_digits_are_in_order_and_pixels_row_by_row():
    split = glyphs.glyphs()
    assert split.labels.tolist() == list(range(10))
    assert split.inputs[4].tolist() == [pixel == "#" for pixel in "".join(FOUR.split())]
    assert np.flatnonzero(split.inputs[1]).tolist() == [2, 6, 7, 12, 17, 21, 22, 23]


def test_no_two_digits_are_alike_even_when_shifted():
    assert least_distance(0, 0) == 5
    assert least_distance(1, 0) == 5
    assert least_distance(1, 1) == 2


# --- Draws ----------------------------------------------------------------------------------------


def test_clean_draws_are_the_glyphs_each_as_often():
    split = glyphs.draw(jax.random.key(0), 5000)
    np.testing.assert_array_equal(split.inputs, glyphs.glyphs().inputs[split.labels])
    counts = np.bincount(split.labels, minlength=10)
    assert np.abs(counts - 500).max() < 5 * np.sqrt(5000 * 0.1 * 0.9)


@pytest.mark.parametrize("shift", [1, 2])
def test_shifts_are_all_moves_of_every_digit_each_as_often(shift):
    expected = moved(shift)
    seen = pictures(glyphs.draw(jax.random.key(shift), 200 * len(expected), shift=shift))
    assert set(seen) == set(expected)
    for each in set(expected):  # two moves may leave the same
        mean = 200 * expected.count(each)
        assert abs(seen.count(each) - mean) < 5 * np.sqrt(mean)


@pytest.mark.parametrize("noise", [0.1, 0.5, 0.9])
def test_noise_flips_its_share_of_every_pixel_independently(noise):
    n = 4000
    split = glyphs.draw(jax.random.key(1), n, noise=noise)
    flipped = split.inputs != glyphs.glyphs().inputs[split.labels]
    deviation = np.sqrt(noise * (1 - noise))
    assert np.abs(flipped.mean(axis=0) - noise).max() < 5 * deviation / np.sqrt(n)
    correlation = np.corrcoef(flipped.T) - np.eye(25)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


def test_noise_falls_on_what_shifts_have_moved_in():
    split = glyphs.draw(jax.random.key(2), 4000, noise=0.2, shift=2)
    corner = split.inputs[:, [0, 4, 20, 24]]  # lit by few digits, and seldom when they have moved
    assert (corner.mean(axis=0) > 0.2).all()


def test_draws_are_a_function_of_the_key():
    def draw(seed):
        return glyphs.draw(jax.random.key(seed), 50, noise=0.1, shift=1)

    first, same, other = draw(0), draw(0), draw(1)
    np.testing.assert_array_equal(first.inputs, same.inputs)
    np.testing.assert_array_equal(first.targets, same.targets)
    assert (first.labels != other.labels).any()
    assert (first.inputs != other.inputs).any()


def test_draws_are_the_same_in_every_precision():
    draws = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            draws.append(glyphs.draw(jax.random.key(0), 50, noise=0.3, shift=2))
    assert [draw.inputs.dtype for draw in draws] == [np.float32, np.float64]
    np.testing.assert_array_equal(draws[0].inputs, draws[1].inputs)
    np.testing.assert_array_equal(draws[0].targets, draws[1].targets)


def test_noise_and_shift_compile_nothing_new():
    glyphs.draw(jax.random.key(0), 11)
    before = glyphs._draw._cache_size()
    glyphs.draw(jax.random.key(1), 11, noise=0.4, shift=2, dtype=np.float64)
    assert glyphs._draw._cache_size() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be 1 or more, got 0"),
        ({"noise": -0.1}, r"noise must be in \[0, 1\), got -0.1"),
        ({"noise": 1}, r"noise must be in \[0, 1\), got 1"),
        ({"noise": float("nan")}, r"noise must be in \[0, 1\), got nan"),
        ({"shift": -1}, "shift must be 0, 1 or 2, got -1"),
        ({"shift": 3}, "shift must be 0, 1 or 2, got 3"),
        ({"shift": 0.5}, "shift must be 0, 1 or 2, got 0.5"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        glyphs.draw(jax.random.key(0), **{"count": 1, **options})


# --- The slides' network --------------------------------------------------------------------------


def test_network_that_saw_noisy_digits_knows_the_clean_ones():
    noisy, unseen = (glyphs.draw(jax.random.key(seed), 2000, noise=0.05) for seed in (0, 1))
    params = mlp.init(jax.random.key(2), (25, 20, 10), scheme="lecture")
    clean = glyphs.glyphs()
    assert train.evaluate(params, clean).accuracy < 0.5
    fit = train.fit(
        params,
        noisy,
        unseen,
        key=jax.random.key(3),
        optimizer=optax.sgd(1.0),
        batch_size=20,
        epochs=15,
    )
    assert train.evaluate(fit.params, clean).accuracy == 1
    assert fit.history[-1].validation_accuracy > 0.98
