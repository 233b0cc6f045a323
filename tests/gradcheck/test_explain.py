"""The causes that an audit names: of the fault that is there, and of no other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import gradcheck
from jaxnet.gradcheck import explain

from .common import DTYPE, smooth

COMPLEX = jnp.result_type(complex)


def wave(x):
    return jnp.sum((jnp.sin(x) * jnp.exp(x / 2)).real)


def diagnose(f, *args, change):
    gradient = change(jax.grad(f)(*args))
    report = gradcheck.check(f, *args, gradient=gradient)
    assert report.verdict == "fail"
    return report.leaves[0].diagnosis


@pytest.mark.long
@pytest.mark.parametrize("shape", [(), (30,), (6, 7), (2, 2), (1, 2), (3, 3, 2)])
def test_a_missing_conjugate_is_named(shape):
    z = jax.random.normal(jax.random.key(0), shape, COMPLEX)
    words = "the imaginary parts have the wrong sign: a conjugate"
    assert diagnose(wave, z, change=jnp.conj) == words


@pytest.mark.long
@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        ((2,), lambda g: g.at[0].add(1), ""),  # (2, 2) as real numbers: no matrix
        ((5, 5), lambda g: g.T, "transposed"),
        ((5, 6), lambda g: g.at[:, 2].multiply(2), "only column 2 is off"),
        ((5, 6), lambda g: g + 1, "a constant too many, 1+"),
        ((30,), lambda g: g.real.astype(COMPLEX), ""),
        ((30,), lambda g: g * jnp.minimum(1, 0.5 / jnp.abs(g)).astype(COMPLEX), "clipped at 0.5"),
    ],
)
def test_parts_of_complex_numbers_are_no_axis(shape, change, words):
    z = jax.random.normal(jax.random.key(0), shape, COMPLEX)
    found = diagnose(wave, z, change=change)
    assert found.startswith(words)
    assert words or not found


def test_a_constant_is_no_weight_decay_where_all_coordinates_are_equal():
    x = jnp.full((4, 5), 0.5, DTYPE)
    weights = jax.random.normal(jax.random.key(0), x.shape, DTYPE)
    words = diagnose(lambda x: jnp.sum(weights * jnp.sin(x)), x, change=lambda g: g + 1)
    assert words == "a constant too many, 1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: 1.07 * g, ""),
        (lambda g: g + 0.3, ""),
        (lambda g: -g, "the sign: it is minus the right gradient"),
        (lambda g: 0 * g, "zero: the gradient is stopped, or never passed on"),
        (lambda g: g / 2, "a factor of 1/2"),
        (lambda g: 7 * g, "a factor of 7, the length of an axis: a sum for a mean, or the reverse"),
    ],
)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_of_one_element_only_what_has_a_name_is_named(shape, change, words):
    def f(x, y):
        return jnp.sum(jnp.sin(x)) * jnp.sum(y)

    args = jnp.full(shape, 0.7, DTYPE), jnp.linspace(1, 2, 7, dtype=DTYPE)
    assert diagnose(f, *args, change=change) == words


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95, 1.0])
def test_clipping_is_named_whatever_is_clipped(share):
    x = jax.random.normal(jax.random.key(0), (200,), DTYPE)
    limit = float(jnp.quantile(jnp.abs(jax.grad(wave)(x)), 1 - share)) * 0.999
    words = diagnose(wave, x, change=lambda g: jnp.clip(g, -limit, limit))
    assert words == f"clipped at {limit:.3g}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (jnp.inf, "infinite in 1 of 30 places, first at x[4]: an overflow, or a division"),
        (jnp.nan, "NaN in 1 of 30 places, first at x[4]: the branch of a where"),
    ],
)
def test_an_infinity_is_an_overflow_and_nan_a_branch(value, words):
    x = jax.random.normal(jax.random.key(0), (30,), DTYPE)
    assert diagnose(wave, x, change=lambda g: g.at[4].set(value)).startswith(words)


@pytest.mark.parametrize(("factor", "name"), [(55.0, "55"), (1 / 55, "1/55")])
def test_a_sum_for_a_mean_over_two_axes_is_named(factor, name):
    def f(x, images):
        return jnp.mean(jnp.sin(x)[None, None] * images)

    images = jax.random.normal(jax.random.key(0), (11, 5, 13), DTYPE)
    x = jnp.linspace(0.1, 1, 13, dtype=DTYPE)
    words = diagnose(f, x, images, change=lambda g: factor * g)
    assert words == (
        f"a factor of {name}, the lengths of axes, 11 x 5: a sum for a mean, or the reverse"
    )


def test_a_single_axis_comes_before_a_product():
    lengths = explain.lengths_of((np.ones((2, 3, 1)), np.ones((6, 5)), 1.0))
    assert lengths[6] == "the length of an axis"
    assert lengths[30] == "the lengths of axes, 6 x 5"
    assert 1 not in lengths


def test_what_differences_cannot_see_is_not_said_to_be_independent():
    x = jnp.ones(3, DTYPE)
    words = diagnose(lambda x: jnp.sum(jnp.round(x * 0.3)), x, change=lambda g: g + 1)
    assert words == "not zero, where differences are"


def wrong_rule(change):
    """Returns `smooth` with a backward rule whose result is changed: jax.grad has nothing right."""

    @jax.custom_vjp
    def f(x):
        return smooth(x)

    f.defvjp(lambda x: (f(x), x), lambda x, cotangent: (change(cotangent * jax.grad(smooth)(x)),))
    return f


def test_group_testing_finds_coordinates_where_jax_has_none_right():
    places = [(3, 7), (77, 99), (78, 0)]

    def change(gradient):
        for place in places:
            gradient = gradient.at[place].add(0.1 * jnp.linalg.norm(gradient))
        return gradient

    x = jax.random.normal(jax.random.key(1), (100, 100), DTYPE)
    (leaf,) = gradcheck.check(wrong_rule(change), x).leaves
    assert leaf.verdict == "fail"
    assert leaf.location.is_counted
    assert leaf.location.off == 3
    assert {each.path for each in leaf.location.worst} == {f"x[{i}, {j}]" for i, j in places}
    for each in leaf.location.worst:
        assert abs(each.given - each.numerical) > 10 * each.bar


def test_group_testing_estimates_how_many_where_they_are_many():
    x = jax.random.normal(jax.random.key(1), (100, 100), DTYPE)
    half = jnp.arange(100)[:, None] < 50
    (leaf,) = gradcheck.check(wrong_rule(lambda g: jnp.where(half, 1.5 * g, g)), x).leaves
    assert leaf.verdict == "fail"
    assert not leaf.location.is_counted
    assert 2_000 < leaf.location.off < 8_000
    assert int(leaf.location.worst[0].path[2:-1].split(",")[0]) < 50


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: -g, "the sign"),
        (lambda g: 0 * g, "zero: the gradient is stopped"),
        (lambda g: g / 2, "a factor of 1/2"),
        (lambda g: g * 24, "a factor of 24, the length of an axis"),
        (lambda g: g / 24, "a factor of 1/24, the length of an axis"),
        (lambda g: 1.3 * g, "a factor of 1.3"),
        (lambda g: g.T, "transposed"),
        (lambda g: g.at[5].multiply(3), "only row 5 is off"),
        (lambda g: g.at[:, 3].set(0), "only column 3 is zero"),
        (lambda g: g + 1, "a constant too many, 1"),
        (lambda g: jnp.clip(g, -2, 2), "clipped at 2"),
        (lambda g: jnp.where(g > 0, g, 0), "zero where it should not be: a mask"),
        (lambda g: g.at[5, 3].set(jnp.inf), "infinite in 1 of 576 places, first at tree[5, 3]"),
    ],
)
def test_diagnosis(audit_smooth, change, words):
    x = jax.random.normal(jax.random.key(0), (24, 24), DTYPE)
    report = audit_smooth(x, gradient=change(jax.grad(smooth)(x)))
    assert report.verdict == "fail"
    assert words in report.leaves[0].diagnosis
    assert words in str(report)


def test_diagnosis_of_a_weight_decay(audit_smooth):
    x = jax.random.normal(jax.random.key(0), (24, 24), DTYPE)
    report = audit_smooth(x, gradient=jax.grad(smooth)(x) + 0.1 * x)
    assert "a term too many, 0.1 times the argument" in report.leaves[0].diagnosis


@pytest.fixture(scope="module")
def audit_smooth():
    return gradcheck.make_check(smooth)


def test_a_factor_is_named_without_a_right_gradient():
    x = jax.random.normal(jax.random.key(1), (100, 100), DTYPE)
    (leaf,) = gradcheck.check(wrong_rule(lambda g: -g), x).leaves
    assert leaf.diagnosis.startswith("the sign")
    assert leaf.error == pytest.approx(2, rel=1e-3)
