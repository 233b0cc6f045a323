import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import gradcheck

from .common import DTYPE, product, smooth


class Settings:
    """What is hashable by its identity only."""

    power = 2


def steered(x, mode, n, flag, activation, nothing, settings, key, rate):
    """Python looks at all that is no array; an array of integers and a key are arrays."""
    assert nothing is None
    y = activation(x) if mode == "smooth" and flag is True else x
    for _ in range(n):
        y = y * rate.astype(x.dtype) if hasattr(rate, "dtype") else y * rate
    noise = jax.random.bernoulli(key, 0.5, x.shape).astype(x.dtype)
    return jnp.sum(y ** settings["of"].power * (1 + noise))


def steering():
    return ("smooth", 3, True, jnp.sin, None, {"of": Settings()}, jax.random.key(3), 0.5)


def test_arguments_that_are_no_arrays_reach_the_function_as_they_are():
    x = jnp.linspace(0.5, 1, 5, dtype=DTYPE)
    report = gradcheck.check(steered, x, *steering())
    assert report.verdict == "pass"
    assert report.leaves[0].path == "x"
    called = []

    def gradient(*args):
        called.append(args)
        return 1.1 * jax.grad(steered)(*args)

    others = steering()
    assert gradcheck.check(steered, x, *others, gradient=gradient).verdict == "fail"
    assert all(ours is theirs for ours, theirs in zip(called[0][1:], others, strict=True))
    estimate = gradcheck.finite_difference(steered, x, *others)
    np.testing.assert_allclose(estimate, jax.grad(steered)(x, *others), rtol=1e-2)


def test_static_arguments_of_a_compiled_function():
    f = jax.jit(lambda x, n: jnp.sum(x**n if n > 2 else x), static_argnums=1)
    x = jnp.linspace(0.5, 1, 5, dtype=DTYPE)
    report = gradcheck.check(f, x, 3)
    assert (report.verdict, report.leaves[0].path) == ("pass", "x")
    with jax.enable_x64(True):
        found = gradcheck.convergence(f, jnp.linspace(0.5, 1, 5), np.int64(3))
    assert found.central.slope == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: [n, {n}]], ids=["hashable", "not"])
def test_what_is_compiled_is_kept_while_what_is_no_array_is_the_same(wrap):
    traced = []

    def f(x, n):
        traced.append(n)
        return jnp.sum(jnp.sin(x) ** (n if isinstance(n, int) else n[0]))

    audit = gradcheck.make_check(f)
    x = jnp.linspace(0.5, 1, 20, dtype=DTYPE)
    assert audit(x, wrap(2)).verdict == "pass"
    first = len(traced)
    assert audit(x, wrap(3)).verdict == "pass"
    second = len(traced) - first
    assert second > 1
    assert audit(x + 1, wrap(2)).verdict == "pass"
    # Asked for the form of its result, which compiles nothing.
    assert (len(traced) - first - second <= 1) == isinstance(wrap(2), int)
    assert audit(x, wrap(1)).leaves[0].norm != audit(x, wrap(3)).leaves[0].norm


def test_true_is_not_one():
    def f(x, n):
        return jnp.sum(x) * (2.0 if n is True else 1.0)

    audit = gradcheck.make_check(f)
    x = jnp.ones(4, DTYPE)
    assert audit(x, 1).leaves[0].norm == pytest.approx(2)
    assert audit(x, True).leaves[0].norm == pytest.approx(4)


def test_several_gradients_are_measured_once_beside_what_is_no_array():
    calls = []

    def counted(x, mode):
        jax.debug.callback(lambda: calls.append(1))
        return smooth(x) if mode == "smooth" else jnp.sum(x)

    audit = gradcheck.make_check(counted)
    x = jnp.ones(100, DTYPE)
    assert audit(x, "smooth", gradient=jax.grad(smooth)(x)).verdict == "pass"
    first = len(calls)
    assert audit(x, "smooth", gradient=2 * jax.grad(smooth)(x)).verdict == "fail"
    assert len(calls) < 1.5 * first


def test_a_constant_of_python_is_a_scalar():
    x = jnp.ones(30, DTYPE)
    assert gradcheck.check(lambda x: 1.0, x).verdict == "pass"
    assert gradcheck.check(lambda x: 1.0, x, gradient=x).verdict == "fail"
    assert not np.any(gradcheck.finite_difference(lambda x: 1.0, x))


def test_a_float_of_python_is_an_argument():
    assert gradcheck.check(lambda x: x**2, 3.0).verdict == "pass"


def with_tracer(transform, of_gradient=False):
    def call(x):
        def audited(y):
            point, gradient = (x, y) if of_gradient else (y, None)
            return gradcheck.check(smooth, point, gradient=gradient).leaves[0].norm

        return transform(audited)(x)

    return call


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: gradcheck.check(lambda x: 1, x), TypeError, "floating-point number, got int"),
        (lambda x: gradcheck.check(lambda x: "1", x), TypeError, "must return arrays, got str"),
        (lambda x: gradcheck.check(lambda x: None, x), ValueError, "scalar, got None"),
        (
            lambda x: gradcheck.check(product, x, x, argnums=(0, 0)),
            ValueError,
            r"argnums must be distinct, got \(0, 0\)",
        ),
        (
            lambda x: gradcheck.check(product, x, x, argnums=(0, -1)),
            ValueError,
            r"argnums must be from 0 to 1, got \(0, -1\)",
        ),
        (with_tracer(jax.jit), TypeError, "tree must be of concrete arrays, got a tracer: audit"),
        (with_tracer(jax.grad), TypeError, "got a tracer: audit outside of jit"),
        (with_tracer(jax.vmap), TypeError, "got a tracer: audit outside of jit"),
        (with_tracer(jax.grad, of_gradient=True), TypeError, "the gradient must be of concrete"),
        (
            lambda x: jax.jit(lambda y: gradcheck.check(product, x, y))(x),
            TypeError,
            "y must be of concrete arrays",
        ),
        (
            lambda x: gradcheck.check(smooth, {"a": x, "b": x.astype(jnp.float8_e4m3fn)}),
            TypeError,
            r"tree\['b'\] must have 16 bits or more to be audited, got float8_e4m3fn",
        ),
        (
            lambda x: gradcheck.check(smooth, np.ones(3, np.longdouble)),
            TypeError,
            "tree must be an array, of a dtype of JAX, got (float128|longdouble|float96)",
        ),
        (
            lambda x: gradcheck.check(smooth, x, directions=2.5),
            TypeError,
            "directions must be an integer, got 2.5",
        ),
        (
            lambda x: gradcheck.check(smooth, x, directions=True),
            TypeError,
            "directions must be an integer, got True",
        ),
        (lambda x: gradcheck.check(smooth, x, key=3), TypeError, "key must be a key .*, got int"),
        (
            lambda x: gradcheck.check(smooth, x, key=jnp.ones(2, DTYPE)),
            TypeError,
            "key must be a key of jax.random, got float",
        ),
        (
            lambda x: gradcheck.check(smooth, x, tolerance=math.inf),
            ValueError,
            "tolerance must be below 1, at which 0 passes, got inf",
        ),
        (lambda x: gradcheck.check(smooth, x, tolerance=1.0), ValueError, "below 1, .*, got 1.0"),
        (lambda x: gradcheck.check(smooth, x, tolerance=math.nan), ValueError, "positive, got nan"),
    ],
)
def test_what_no_audit_can_take_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones(3, DTYPE))


def test_keys_of_both_kinds_draw_directions():
    x = jnp.ones(30, DTYPE)
    new, old = jax.random.key(1), jax.random.PRNGKey(1)
    assert gradcheck.check(smooth, x, key=new) == gradcheck.check(smooth, x, key=old)


def test_the_form_of_a_call_is_told_in_words():
    with pytest.raises(ValueError, match="must be given the arguments where it is to be audited"):
        gradcheck.check(smooth)
    with pytest.raises(ValueError, match=r"must return a scalar, got an array of shape \(3,\)"):
        gradcheck.check(jnp.sin, jnp.ones(3, DTYPE))
    with pytest.raises(ValueError, match=r"must return a scalar, got \('float\d\d\[\]', 'float"):
        gradcheck.check(lambda x: (x, x), jnp.ones((), DTYPE))
