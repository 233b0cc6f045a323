import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnet import gradcheck, mlp
from jaxnet.gradcheck import changes
from jaxnet.gradcheck.thresholds import Thresholds

from .common import DTYPE, EPSILON, product, smooth


def network(params, inputs, targets):
    """`mlp.loss`, without the checks at its door: they refuse complex numbers."""
    for weight, bias in params:
        inputs = jax.nn.sigmoid(inputs @ weight + bias[None, :])
    return jnp.mean(jnp.sum((inputs - targets) ** 2, axis=1))


def entropy(x):
    return jax.nn.logsumexp(jnp.sin(x) * jnp.exp(x / 2)) + jnp.linalg.norm(x[:0].real)


def draw(batch, *sizes):
    generator = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(generator.normal(size=shape) / np.sqrt(shape[0]), DTYPE)

    params = tuple(mlp.Layer(normal(*pair), normal(pair[1])) for pair in itertools.pairwise(sizes))
    return params, normal(batch, sizes[0]), normal(batch, sizes[-1])


@pytest.fixture
def small_problem():
    return draw(6, 5, 4, 3)


def assert_equal_up_to(bar, ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=bar, rtol=0)


def test_every_coordinate_of_the_lectures_network():
    lecture = draw(256, 784, 30, 10)
    estimate = gradcheck.finite_difference(mlp.loss, *lecture)
    value, gradient = jax.value_and_grad(mlp.loss)(*lecture)
    round_off = 4 * EPSILON * float(value) / gradcheck.default_step(DTYPE)
    assert_equal_up_to(round_off, estimate, gradient)


def test_complex_step_of_a_network_is_as_exact_as_jax_grad(small_problem):
    estimate = gradcheck.finite_difference(network, *small_problem, scheme="complex-step")
    assert_equal_up_to(10 * EPSILON, estimate, jax.grad(network)(*small_problem))
    central = gradcheck.finite_difference(network, *small_problem)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_equal_up_to(10 * EPSILON, central, jax.grad(network)(*small_problem))


@pytest.mark.parametrize("step", [None, 1e-4, 1e-30])
def test_complex_step_hardly_depends_on_the_step(step):
    x = jnp.array([-20.0, 0.3, 2.0], DTYPE)
    estimate = gradcheck.finite_difference(entropy, x, scheme="complex-step", step=step)
    bar = 20 * EPSILON + (0 if step is None else (20 * step) ** 2)
    np.testing.assert_allclose(estimate, jax.grad(entropy)(x), atol=bar, rtol=0)


def test_complex_step_of_chosen_coordinates():
    x = jnp.arange(1.0, 7.0, dtype=DTYPE).reshape(2, 3)
    estimate = gradcheck.finite_difference_at(
        lambda x, y: jnp.prod(x) * y, np.array([4, 0]), x, 2, scheme="complex-step"
    )
    np.testing.assert_allclose(estimate, [2 * 720 / 5, 2 * 720], rtol=10 * EPSILON)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_complex_step_in_16_bits_is_taken_in_complex64(dtype):
    x = jnp.array([-1.0, 0.5, 2.0], dtype)
    estimate = gradcheck.finite_difference(entropy, x, scheme="complex-step")
    expected = jax.grad(entropy)(x.astype(jnp.float32))
    assert estimate.dtype == dtype
    np.testing.assert_allclose(
        estimate.astype(jnp.float32), expected, rtol=float(jnp.finfo(dtype).eps)
    )


def refusing(x):
    if jnp.iscomplexobj(x):
        raise ValueError("real numbers only\nand some advice")
    return jnp.sum(x)


def with_conj_inside_a_loop(x):
    def step(total, each):
        return total + each * jnp.conj(each), None

    return lax.scan(step, jnp.zeros((), x.dtype), x)[0]


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (refusing, "accept complex arguments, got: real numbers only$"),
        (lambda x: jnp.sum(jnp.floor(x)), "accept complex arguments, got: floor"),
        (jnp.linalg.norm, "to be holomorphic, got a result of dtype float"),
        (lambda x: jnp.vdot(x, x), "to be holomorphic, got one with conj$"),
        (with_conj_inside_a_loop, "to be holomorphic, got one with conj$"),
        (lambda x: jnp.sum(jnp.abs(x) + jnp.vdot(x, x)), "got one with abs and conj$"),
    ],
)
def test_complex_step_refuses_what_is_not_holomorphic(f, message):
    with pytest.raises(TypeError, match=message):
        gradcheck.finite_difference(f, jnp.ones(3, DTYPE), scheme="complex-step")


def test_complex_step_names_why_a_function_refuses_complex_arguments(small_problem):
    message = r"accept complex arguments, got: params\[0\].weight must be floating-point, got comp"
    with pytest.raises(TypeError, match=message):
        gradcheck.finite_difference(mlp.loss, *small_problem, scheme="complex-step")


def test_unknown_schemes_are_refused_and_the_known_ones_named():
    message = "must be one of central, forward, complex-step, got 'left'"
    with pytest.raises(ValueError, match=message):
        gradcheck.default_step(DTYPE, "left")


@pytest.mark.parametrize("scheme", ["central", "forward", "complex-step"])
def test_differences_can_be_jitted_and_vectorised(scheme):
    xs = jnp.linspace(-1, 1, 6, dtype=DTYPE).reshape(2, 3)

    @jax.jit
    @jax.vmap
    def estimate(x):
        return gradcheck.finite_difference(entropy, x, scheme=scheme)

    expected = jax.vmap(jax.grad(entropy))(xs)
    np.testing.assert_allclose(estimate(xs), expected, atol=30 * EPSILON**0.5, rtol=0)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_an_infinite_sum_on_the_way_does_not_matter(scheme, monkeypatch):
    """Conductors in series: the derivative in the one that does not conduct is 1."""
    monkeypatch.setattr(changes, "THRESHOLDS", Thresholds(change_work=-math.inf))
    x = jnp.array([0.0, 1.0, 2.0], DTYPE)
    estimate = gradcheck.finite_difference(lambda x: 1 / jnp.sum(1 / x), x, scheme=scheme)
    np.testing.assert_allclose(estimate, [1, 0, 0], atol=10 * EPSILON**0.3)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_derivatives_of_the_lectures_product(scheme):
    x, y = jnp.asarray(5.0, DTYPE), jnp.asarray(-2.0, DTYPE)
    along_x = gradcheck.finite_difference(product, x, y, scheme=scheme)
    along_y = gradcheck.finite_difference(product, x, y, argnums=1, scheme=scheme)
    # Linear in each, so that nothing is truncated: round-off, eps |f| / h, is all there is.
    bar = 4 * EPSILON * 10 / gradcheck.default_step(DTYPE, scheme)
    assert float(along_x) == pytest.approx(-2, abs=bar)
    assert float(along_y) == pytest.approx(5, abs=bar)


@pytest.mark.parametrize(("scheme", "power"), [("central", 2 / 3), ("forward", 1 / 2)])
def test_differences_of_a_tree(tree, scheme, power):
    estimate = gradcheck.finite_difference(smooth, tree, scheme=scheme)
    gradient = jax.grad(smooth)(tree)
    assert jax.tree.structure(estimate) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(estimate), jax.tree.leaves(gradient), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))
    # The step scales with coordinates up to 20, so the error may be 20 times h's power.
    bar = 100 * EPSILON**power * scale
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=bar, rtol=0), estimate, gradient
    )


@pytest.mark.parametrize(("scheme", "order"), [("forward", 1), ("central", 2)])
def test_order_of_convergence_is_the_slides(scheme, order):
    """O(h) and O(h^2): in float64, ten times the step makes 10 and 100 times the error."""
    with jax.enable_x64(True):
        x = jnp.asarray(0.3)
        errors = [
            abs(
                float(gradcheck.finite_difference(jnp.exp, x, scheme=scheme, step=h))
                - math.exp(0.3)
            )
            for h in (1e-2, 1e-3)
        ]
    assert math.log10(errors[0] / errors[1]) == pytest.approx(order, abs=0.01)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_default_step_is_near_the_best(scheme):
    """For exp near 0, where f and its derivatives are 1, far smaller or larger steps are worse."""
    with jax.enable_x64(True):
        xs = jnp.linspace(-0.1, 0.1, 201)

        def error(step):
            def difference(x):
                return gradcheck.finite_difference(jnp.exp, x, scheme=scheme, step=step)

            return float(jnp.linalg.norm(jax.vmap(difference)(xs) - jnp.exp(xs)))

        best = gradcheck.default_step(np.float64, scheme)
        assert error(best) < 0.2 * error(100 * best)
        assert error(best) < 0.2 * error(best / 100)


def test_chosen_coordinates_are_those_of_the_full_estimate(tree):
    coordinates = gradcheck.sample_coordinates(jax.random.key(0), tree, 5)
    sizes = jax.tree.map(len, coordinates)
    assert sizes == {"matrix": 5, "scalar": 1, "pair": (2, 1)}
    some = gradcheck.finite_difference_at(smooth, coordinates, tree)
    full = gradcheck.finite_difference(smooth, tree)
    jax.tree.map(
        lambda few, at, all_: np.testing.assert_allclose(few, np.ravel(all_)[at], rtol=1e-5),
        some,
        coordinates,
        full,
    )


def test_sampled_coordinates_are_distinct_and_follow_the_key(tree):
    first = gradcheck.sample_coordinates(jax.random.key(0), tree, 8)["matrix"]
    again = gradcheck.sample_coordinates(jax.random.key(0), tree, 8)["matrix"]
    other = gradcheck.sample_coordinates(jax.random.key(1), tree, 8)["matrix"]
    assert len(set(first.tolist())) == 8
    assert set(first.tolist()) <= set(range(12))
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()
    with pytest.raises(ValueError, match="count must be 1 or more, got 0"):
        gradcheck.sample_coordinates(jax.random.key(0), tree, 0)


def test_blocks_do_not_change_the_estimate(tree, monkeypatch):
    whole = gradcheck.finite_difference(smooth, tree)
    monkeypatch.setattr(changes, "THRESHOLDS", Thresholds(change_elements=40))
    blocks = gradcheck.finite_difference(smooth, tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), whole, blocks)


@pytest.mark.parametrize(
    ("coordinates", "message"),
    [
        (np.array([3]), "coordinates must be from 0 to 2, got 3"),
        (np.array([[0, 1]]), r"\(k,\) integers, got int64 of shape \(1, 2\)"),
        (np.array([0.5]), r"\(k,\) integers, got float64"),
        (np.array([], int), r"\(k,\) integers, got int64 of shape \(0,\)"),
        ((np.array([0]),), "structure of their argument"),
    ],
)
def test_coordinates_that_are_not_there_are_refused(coordinates, message):
    with pytest.raises(ValueError, match=message):
        gradcheck.finite_difference_at(smooth, coordinates, jnp.ones(3, DTYPE))
