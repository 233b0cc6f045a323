"""Slopes from values, and verdicts from slopes: NumPy alone, no function of JAX."""

import math

import numpy as np
import pytest

from jaxnet.gradcheck import slopes
from jaxnet.gradcheck.thresholds import THRESHOLDS

EPSILON = 2.0**-52


def measure(phi, scale=1.0, epsilon=EPSILON):
    """Returns the slope at 0 as an audit measures it; epsilon is of the narrowest dtype inside."""
    with np.errstate(all="ignore"):
        steps = slopes.ladder(scale, epsilon)[None]
        near = phi(epsilon**0.6 * slopes.NOISE_POINTS)
        above, below = phi(steps), phi(-steps)
        noise = np.maximum(slopes.noise(near), slopes.scatter(steps, above, below))
        here = float(phi(np.zeros(1))[0])
        return slopes.extrapolate(steps, above, below, here, noise, EPSILON, epsilon)


KINKS = np.sort(np.random.default_rng(0).normal(size=10_000))
BENDS = 1e-3 * np.random.default_rng(1).normal(size=10_000)


def many_kinks(t):
    return np.maximum(t[..., None] - KINKS, 0) @ BENDS


def in_float32(t):
    return np.sin(t + 0.3).astype(np.float32).astype(float)


@pytest.mark.parametrize(
    ("phi", "slope", "bar"),
    [
        pytest.param(np.exp, 1.0, 1e-9, id="exp"),
        pytest.param(lambda t: np.sin(1e3 * t + 0.3), 1e3 * math.cos(0.3), 1e-5, id="stiff"),
        pytest.param(lambda t: np.log(t + 1e-3), 1e3, 1e-4, id="undefined at large steps"),
        pytest.param(lambda t: (t - 1) ** 2, -2.0, 1e-14, id="quadratic"),
        pytest.param(lambda t: t**3, 0.0, 1e-12, id="flat"),
        pytest.param(lambda t: 0 * t + 3.3, 0.0, 1e-14, id="constant"),
        pytest.param(lambda t: 1e12 + t, 1.0, 1e-3, id="drowned"),
        pytest.param(lambda t: np.maximum(t - 1e-5, 0) + np.sin(t), 1.0, 1e-9, id="near a kink"),
        pytest.param(many_kinks, float(np.sum(BENDS[KINKS < 0])), 1e-6, id="many kinks"),
    ],
)
def test_slopes_are_within_their_bars_and_the_bars_are_small(phi, slope, bar):
    found = measure(phi)
    assert abs(found.value[0] - slope) <= found.bar[0] < bar
    assert found.jump[0] == 0


@pytest.mark.parametrize("side", [1, -1])
def test_finest_step_is_trusted_where_a_coarser_one_crosses_a_kink(side):
    def phi(t):
        return np.maximum(side * t - 1e-5, 0) + np.sin(t)

    steps = slopes.around(1.5e-5, 1e-9)[None]  # the finest is 4e-6
    found = slopes.extrapolate(steps, phi(steps), phi(-steps), 0.0, np.full((1, 1), 1e-17), EPSILON)
    assert abs(found.value[0] - 1) <= found.bar[0] < 1e-9


def test_extrapolation_counts_the_kink_that_its_coarsest_step_sees():
    def phi(t):
        return np.maximum(t - 1e-5, 0) + np.sin(t)

    steps = slopes.around(6.1e-5, 1e-9)[None]  # the finest is 1.5e-5
    found = slopes.extrapolate(steps, phi(steps), phi(-steps), 0.0, np.full((1, 1), 1e-17), EPSILON)
    assert abs(found.value[0] - 1) <= found.bar[0]


def test_kink_that_is_small_beside_the_curvature_is_seen():
    def phi(t):
        return 1 + 100 * t**2 + 0.01 * t + 3e-6 * np.maximum(t - 1e-10, 0)

    found = measure(phi)
    assert abs(found.value[0] - 0.01) <= found.bar[0]
    assert found.jump[0] == pytest.approx(3e-6, rel=0.5)


def test_steps_that_were_too_wide_bound_nothing():
    def phi(t):
        bell = np.exp(-(t**2) / 1e-4)
        return t * bell + 1e-5 * (bell - 1)

    steps = 0.1 * THRESHOLDS.ratio ** np.arange(3.0, -1.0, -1)[None]  # the bell is 0.01 wide
    found = slopes.extrapolate(steps, phi(steps), phi(-steps), 0.0, np.full((1, 1), 1e-17), EPSILON)
    assert found.truncation[0] == np.inf


def test_float32_inside_takes_wider_steps():
    found = measure(in_float32, epsilon=2.0**-23)
    assert abs(found.value[0] - math.cos(0.3)) <= found.bar[0] < 2e-5


def test_a_function_a_little_faster_than_the_steps_is_measured():
    found = measure(lambda t: np.sin(1e6 * t + 0.3))
    assert abs(found.value[0] - 1e6 * math.cos(0.3)) <= found.bar[0] < 1e4


def test_a_function_that_turns_within_the_steps_is_not_taken_for_noise():
    def turning(t):
        return np.sin(1e8 * t + 0.3)

    spacing = EPSILON**0.6
    near = turning(spacing * slopes.NOISE_POINTS)
    assert slopes.is_contradicted(measure(turning), near, spacing, EPSILON)
    for phi in (
        np.exp,
        many_kinks,
        lambda t: 1e12 + t,
        lambda t: 80 + 0.7 * t,
        lambda t: t.astype(np.float32) + 0.1,
    ):
        near = phi(spacing * slopes.NOISE_POINTS).astype(float)
        assert not slopes.is_contradicted(
            measure(lambda t, phi=phi: phi(t) * 1.0), near, spacing, EPSILON
        )


@pytest.mark.parametrize(("scale", "steps"), [(1e-10, 33), (1.0, 16), (1e6, 26)])
def test_steps_reach_from_the_larger_scale_to_below_the_smaller(scale, steps):
    ladder = slopes.ladder(scale, EPSILON)
    assert len(ladder) == steps
    assert scale * ladder[0] > max(1, scale)
    assert scale * ladder[-1] < 1e-7 * min(1, scale)
    slope = math.cos(3)
    found = measure(lambda t: np.sin(scale * t + 3), scale)
    assert abs(found.value[0] / scale - slope) <= found.bar[0] / scale < 1e-6


@pytest.mark.parametrize(
    ("phi", "jump"), [(np.abs, 2.0), (lambda t: np.maximum(t, 0) + np.sin(t), 1.0)]
)
def test_a_kink_is_seen_and_widens_the_bar(phi, jump):
    found = measure(phi)
    assert found.jump[0] == pytest.approx(jump, rel=1e-3)
    assert found.bar[0] >= jump


def test_truncation_and_round_off_are_told_apart():
    """A noisy line has only round-off; a smooth curve measured with one coarse step, truncation."""
    noise = 1e-6 * np.random.default_rng(0).normal(size=10_000)

    def noisy(t):
        return t + noise[np.abs(np.asarray(t).view(np.int64)) % 9_973]

    found = measure(noisy)
    assert found.round_off[0] > 10 * found.truncation[0]
    assert abs(found.value[0] - 1) <= found.bar[0] < 1e-4
    steps = np.array([[1.0, 0.25, 1 / 16]])
    found = slopes.extrapolate(
        steps, np.exp(3 * steps), np.exp(-3 * steps), 1.0, np.zeros((1, 1)), EPSILON
    )
    assert found.truncation[0] > 10 * found.round_off[0]
    assert abs(found.value[0] - 3) <= found.bar[0]


def test_the_noise_of_values_is_measured():
    generator = np.random.default_rng(0)
    estimates = [
        slopes.noise(np.sin(1e-9 * slopes.NOISE_POINTS) + 1e-7 * generator.normal(size=9))
        for _ in range(500)
    ]
    assert 0.8e-7 < np.median(estimates) < 2e-7
    assert slopes.noise(np.array([1.0, np.nan, *range(7)])) == math.inf


# --- verdicts -------------------------------------------------------------------------------------
