"""Audits of Jacobian and Hessian products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop, gradcheck, mlp

DTYPE = jnp.result_type(float)


def layers(params, scale):
    hidden = jnp.tanh(params["weight"] @ params["vector"])
    return {"hidden": hidden, "scaled": jnp.exp(params["vector"] * scale)}


@pytest.fixture
def args():
    one, two = jax.random.split(jax.random.key(0))
    params = {
        "weight": jax.random.normal(one, (5, 20), DTYPE),
        "vector": jax.random.normal(two, (20,), DTYPE),
    }
    return params, jnp.asarray(0.3, DTYPE)


def with_vector(f, params, scale, change):
    """Returns ``f`` with the vector's gradient changed on its way back."""

    @jax.custom_vjp
    def passed(vector):
        return vector

    passed.defvjp(lambda vector: (vector, None), lambda _, cotangent: (change(cotangent),))
    return f({**params, "vector": passed(params["vector"])}, scale)


def test_vjp_of_a_tree_valued_function(args):
    report = gradcheck.check_vjp(layers, *args, argnums=(0, 1))
    assert (report.verdict, report.subject) == ("pass", "vjp")
    assert "forward and reverse mode agree" in report.notes[-1]
    assert str(report).splitlines()[-2].startswith("pass: vjp in float")


def test_a_wrong_vjp_fails_in_its_leaf(args):
    def vjp(params, scale, cotangent):
        def f(params):
            return with_vector(layers, params, scale, lambda c: 1.1 * c)

        return jax.vjp(f, params)[1](cotangent)[0]

    report = gradcheck.check_vjp(layers, *args, vjp=vjp)
    assert [leaf.verdict for leaf in report.leaves] == ["fail", "pass"]
    assert report.worst.diagnosis == "a factor of 1.1"
    assert "DISAGREE" in report.notes[-1]


def test_jvp(args):
    report = gradcheck.check_jvp(layers, *args, control=True)
    assert (report.verdict, report.subject) == ("pass", "jvp")
    assert all(leaf.control for leaf in report.leaves)


def test_a_wrong_jvp_fails_in_its_leaf(args):
    def jvp(params, scale, tangent):
        tangent = {**tangent, "weight": -tangent["weight"]}
        return jax.jvp(lambda params: layers(params, scale), (params,), (tangent,))[1]

    report = gradcheck.check_jvp(layers, *args, jvp=jvp)
    assert [leaf.verdict for leaf in report.leaves] == ["pass", "fail"]
    assert report.worst.diagnosis.startswith("the sign")
    assert report.worst.error == pytest.approx(2, rel=1e-3)


def test_a_custom_vjp_has_no_forward_mode_and_that_is_said(digits):
    params = mlp.init(jax.random.key(0), (64, 8, 10))
    batch = (jnp.asarray(array[:20]) for array in data_of(digits))
    report = gradcheck.check_jvp(backprop.loss, params, *batch)
    assert (report.verdict, report.leaves) == ("inconclusive", ())
    assert "no forward mode: it has a jax.custom_vjp" in str(report)
    with pytest.raises(gradcheck.GradientError, match="no forward mode"):
        report.raise_if_failed()


def data_of(digits):
    return (np.asarray(array, DTYPE) for array in digits.train)


def test_hvp_of_the_hand_written_loss(digits):
    params = mlp.init(jax.random.key(0), (64, 8, 10))
    batch = [jnp.asarray(array[:20]) for array in data_of(digits)]
    report = gradcheck.check_hvp(backprop.loss, params, *batch)
    assert (report.verdict, report.subject) == ("pass", "hvp")


def test_a_gauss_newton_product_is_not_the_hessians(args):
    """It drops the residuals' curvature: the usual mistake, or the usual approximation."""

    def residuals(params, scale):
        return jnp.tanh(params["weight"] @ params["vector"]) - scale

    def loss(params, scale):
        return jnp.sum(residuals(params, scale) ** 2)

    def gauss_newton(params, scale, vector):
        forward = jax.jvp(lambda p: residuals(p, scale), (params,), (vector,))[1]
        return jax.vjp(lambda p: residuals(p, scale), params)[1](2 * forward)[0]

    assert gradcheck.check_hvp(loss, *args).verdict == "pass"
    assert gradcheck.check_hvp(loss, *args, hvp=gauss_newton).verdict == "fail"


def test_complex_outputs():
    dtype = jnp.result_type(complex)
    z = jax.random.normal(jax.random.key(0), (12,), dtype)

    def f(z):
        return jnp.sin(z) * z.conj()

    assert gradcheck.check_vjp(f, z).verdict == "pass"
    assert gradcheck.check_jvp(f, z).verdict == "pass"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: gradcheck.check_vjp(lambda x: {"n": jnp.argmax(x)}, x),
            TypeError,
            r"floating-point or complex arrays, got int.* in result\['n'\]",
        ),
        (lambda x: gradcheck.check_jvp(lambda x: (), x), TypeError, "must return arrays, got none"),
        (
            lambda x: gradcheck.check_jvp(jnp.sin, x, jvp=lambda x, v: v[:2]),
            ValueError,
            r"jvp must return shape \(3,\), got \(2,\)",
        ),
        (
            lambda x: gradcheck.check_jvp(jnp.sin, x, jvp=lambda x, v: (v, v)),
            ValueError,
            "jvp must return the structure of the result",
        ),
        (lambda x: gradcheck.check_hvp(jnp.sin, x), ValueError, "scalar, got"),
        (
            lambda x: gradcheck.check_hvp(lambda x: jnp.sum(x.real), x.astype(jnp.complex64)),
            TypeError,
            "must be real for a Hessian, got complex64",
        ),
        (
            lambda x: gradcheck.check_vjp(jnp.sin, x, vjp=lambda x, w: w[:1]),
            ValueError,
            r"must have shape \(3,\), got \(1,\)",
        ),
    ],
)
def test_bad_calls_say_what_was_expected_and_what_came(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones(3, DTYPE))


def chosen(x, mode, n):
    return {"y": jnp.sin(x) ** n if mode == "sine" else x, "one": 1.0}


def test_what_is_no_array_reaches_the_products():
    x = jnp.linspace(0.5, 1, 5, dtype=DTYPE)

    def jvp(x, mode, n, tangent):
        assert (mode, n) == ("sine", 2)
        return jax.jvp(lambda x: {"y": jnp.sin(x) ** n, "one": 1.0}, (x,), (1.1 * tangent,))[1]

    for report in (
        gradcheck.check_vjp(chosen, x, "sine", 2),
        gradcheck.check_jvp(chosen, x, "sine", 2),
        gradcheck.check_hvp(lambda x, f: jnp.sum(f(x)), x, jnp.sin),
    ):
        assert (report.verdict, report.leaves[0].path) == ("pass", "x")
    assert gradcheck.check_jvp(chosen, x, "sine", 2, jvp=jvp).verdict == "fail"
    assert (
        gradcheck.check_hvp(lambda x: 1.0, x).leaves[0].diagnosis
        == "zero: f is constant around it, to its last digit"
    )


def called_back(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(np.sin, shape, x, vmap_method="sequential")


def looped(x):
    return jax.lax.map(called_back, x)


@pytest.mark.parametrize("f", [called_back, looped])
def test_a_callback_has_no_forward_mode_and_that_is_said(f):
    x = jnp.ones(3, DTYPE)
    report = gradcheck.check_jvp(f, x)
    assert (report.verdict, report.leaves) == ("inconclusive", ())
    assert "f has no forward mode: Pure callbacks do not support JVP" in str(report)
    with pytest.raises(ValueError, match="the jvp has no leaves: f has no forward mode: Pure"):
        _ = report.worst
    report = gradcheck.check_vjp(f, x, vjp=lambda x, w: w * jnp.cos(x))
    assert report.verdict == "pass"
    assert "f has no forward mode to compare with: Pure callbacks" in report.notes[-1]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_modes_agree_to_what_the_narrowest_dtype_resolves(dtype):
    x = jax.random.normal(jax.random.key(0), (50,), jnp.float32)
    report = gradcheck.check_vjp(lambda x: x.astype(dtype), x)
    assert "forward and reverse mode agree" in report.notes[-1]
    report = gradcheck.check_vjp(
        lambda x: x.astype(dtype), x, vjp=lambda x, w: 1.2 * w.astype(x.dtype)
    )
    assert "DISAGREE" in report.notes[-1]
