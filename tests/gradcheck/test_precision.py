"""What becomes of arguments inside a function, and what an audit makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import gradcheck
from jaxnet.gradcheck import precision

DTYPE = jnp.result_type(float)
KEY = jax.random.key(1)
BFLOAT16, FLOAT16, FLOAT32 = jnp.bfloat16, jnp.float16, jnp.float32


def normal(*shape, dtype=FLOAT32, seed=0):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def rounding(f, *args):
    """Returns how a jaxpr rounds in float64; the first argument is differentiated."""
    with jax.enable_x64(True):
        args = [
            np.asarray(x, np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in args
        ]
        jaxpr = jax.jit(f).trace(*args).jaxpr
    return precision.examine(jaxpr, [number == 0 for number in range(len(args))])


def summed(f):
    return lambda x: jnp.sum(f(x))


@pytest.mark.parametrize(
    ("f", "narrowest"),
    [
        (summed(jnp.sin), "float64"),
        (summed(lambda x: x.astype(BFLOAT16)), "bfloat16"),
        (summed(lambda x: jnp.sin(x.astype(FLOAT32)).astype(x.dtype)), "float32"),
        (summed(jax.jit(lambda x: x.astype(FLOAT16).astype(x.dtype))), "float16"),
        (summed(jax.checkpoint(lambda x: x.astype(FLOAT32).astype(x.dtype))), "float32"),
        (lambda x: jax.lax.scan(lambda c, y: (c + y.astype(FLOAT32), None), np.float32(0), x)[0],
         "float32"),
        (lambda x: jax.lax.cond(x[0] > 0, summed(lambda x: x.astype(FLOAT32)),
                                summed(lambda x: 2 * x.astype(FLOAT32)), x), "float32"),
        (summed(lambda x: jax.lax.reduce_precision(x, 8, 7)), "7 bits"),
        # What never meets the argument, or only chooses, rounds nothing.
        (summed(lambda x: jnp.where(jnp.ones(3, FLOAT32) > 0, x, 0)), "float64"),
        (lambda x: x[jnp.argmax(x)], "float64"),
    ],
)  # fmt: skip
def test_the_narrowest_dtype_on_the_way(f, narrowest):
    assert rounding(f, jnp.ones(3)).narrowest == narrowest


def test_rounding_and_random_numbers_are_seen():
    assert rounding(summed(jnp.round), jnp.ones(3)).is_stepped
    assert rounding(summed(lambda x: x.astype(int).astype(x.dtype)), jnp.ones(3)).is_stepped
    assert not rounding(summed(jnp.sin), jnp.ones(3)).is_stepped
    # It counts signs and swaps, which are integers from the beginning.
    assert not rounding(lambda x: jnp.linalg.slogdet(x)[1], jnp.eye(3)).is_stepped

    def dropped(x, key):
        return jnp.sum(jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0))

    assert [shape for _, shape in rounding(dropped, jnp.ones(3), KEY).draws] == ["uint64[3]"]


def mixed(dtype):
    def f(params, inputs):
        hidden = inputs.astype(dtype)
        for weight in params:
            hidden = jnp.tanh(hidden @ weight.astype(dtype))
        return jnp.mean(hidden.astype(FLOAT32) ** 2)

    return f


def refusing_float64(f):
    def refusing(x):
        if x.dtype == np.float64:
            raise TypeError("no float64")
        return f(x)

    return refusing


def dropout(x, key):
    return jnp.mean(jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, jnp.zeros_like(x)) ** 2)


def logistic_map(x):
    def step(c, _):
        return x.dtype.type(3.9) * c * (1 - c), None

    return jnp.sum(jax.lax.scan(step, x, None, length=25)[0])


def linspace(low, high, count):
    return jnp.linspace(low, high, count, dtype=FLOAT32)


PARAMS = [normal(20, 30) / 4, normal(30, 5, seed=1) / 4]
RIGHT = {
    "bfloat16 inside": (summed(lambda x: x.astype(BFLOAT16) ** 2), linspace(0.1, 1, 20)),
    "bfloat16 network": (mixed(BFLOAT16), PARAMS, normal(64, 20, seed=2)),
    "float16 network": (mixed(FLOAT16), PARAMS, normal(64, 20, seed=2)),
    "bfloat16 alone": (refusing_float64(lambda x: jnp.mean(jnp.sin(x) ** 2)),
                       linspace(0.1, 1.5, 30).astype(BFLOAT16)),
    "bfloat16 alone, large": (refusing_float64(lambda x: jnp.mean(jnp.sin(x) ** 2)),
                              linspace(0.1, 1.5, 2000).astype(BFLOAT16)),
    "float16 alone": (refusing_float64(lambda x: jnp.mean(jnp.sin(x) ** 2)),
                      linspace(0.1, 1.5, 30).astype(FLOAT16)),
    "float32, few digits left": (summed(lambda x: jnp.sin(x.astype(FLOAT32))),
                                 100 + linspace(0, 1, 20)),
    "float32, drowned": (lambda x: (1e4 + jnp.mean(jnp.sin(x) ** 2)).astype(FLOAT32),
                         linspace(-1, 1, 12)),
    "float32 added": (lambda x: jnp.sum(jnp.sin(x.astype(FLOAT32))) + jnp.float32(1e8), normal(64)),
    "drowned": (lambda x: jnp.sum(jnp.sin(x)) + 1e16, normal(64)),
    "underflow": (summed(lambda x: x**2), jnp.full(3, 1e-25, FLOAT32)),
    "chaos": (logistic_map, linspace(0.1, 0.6, 20)),
    "dropout": (dropout, normal(100_000), KEY),
    "dropout, bfloat16": (dropout, normal(20, dtype=BFLOAT16), KEY),
    "a jump at 0": (lambda x: jnp.tanh(1e12 * x), jnp.float32(0)),
    "turns": (lambda x: jnp.sin(1e12 * x), jnp.float32(0)),
    "logarithm by 0": (summed(lambda x: jnp.log(jnp.abs(x) + 1e-12)),
                       jnp.array([1, 1e-11, 1e-11], FLOAT32)),
    "norm of 0": (lambda x: jnp.sum(x * jnp.arange(20, dtype=x.dtype)
                                    / jnp.sqrt(jnp.mean(x**2) + 1e-12)), jnp.zeros(20, FLOAT32)),
    "staircase": (summed(lambda x: jnp.round(1e6 * x)), linspace(0.1, 1, 2000)),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_rounds_inside_is_never_called_wrong_and_hides_no_wrong_gradient(name):
    f, *args = RIGHT[name]
    audit, gradient = gradcheck.make_check(f), jax.grad(f)(*args)
    assert audit(*args).verdict != "fail"
    is_zero = not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))
    if is_zero or name in ("turns", "a jump at 0"):  # where 0 is what differences see
        return
    for factor in (0.0, -7.0):
        wrong = jax.tree.map(
            lambda leaf, factor=factor: (factor * leaf).astype(leaf.dtype), gradient
        )
        assert audit(*args, gradient=wrong).verdict != "pass"


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    "f",
    [
        summed(lambda x: jnp.sin(x.astype(FLOAT32)) ** 2),
        summed(lambda x: jnp.exp(jnp.sin(x).astype(FLOAT32))),
        summed(lambda x: (jnp.sin(x) + 10).astype(FLOAT32) - 10),
    ],
)
def test_float32_inside_is_decided_all_the_same(f, size):
    x = 3 * normal(size, seed=size)
    audit = gradcheck.make_check(f)
    report = audit(x)
    assert report.verdict == "pass"
    assert report.notes == ("f computes in float32 whatever it is given: wider error bars",)
    assert audit(x, gradient=1.05 * jax.grad(f)(x)).verdict == "fail"


def test_zero_is_zero_only_if_nothing_else_will_do():
    x = jnp.ones(3, FLOAT32)
    # Shifts cancel in a softmax, and leave rounding.
    shifted = {"logits": linspace(0, 1, 5), "shift": jnp.float32(0.3)}

    def f(tree):
        logits = tree["logits"] + tree["shift"]
        return jax.nn.logsumexp(logits) - jnp.mean(logits)

    report = gradcheck.check(f, shifted)
    assert report.verdict == "pass"
    assert report.leaves[1].diagnosis == "zero, up to rounding"
    # A constant, and a gradient that is small beside it but is not zero.
    constant = gradcheck.check(lambda x: 1 + 0 * jnp.sum(x), x, gradient=jnp.full(3, 5e-6, FLOAT32))
    assert constant.verdict == "fail"
    for offset in (1e20, 1e30):
        large = gradcheck.check(
            lambda x, offset=offset: offset + jnp.sum(x), x, gradient=-7 * jnp.ones_like(x)
        )
        assert large.verdict == "inconclusive"
    relu = gradcheck.check(jax.nn.relu, jnp.float32(-0.5))
    assert relu.verdict == "pass"
    assert relu.leaves[0].diagnosis == "zero: f is constant around it, to its last digit"
    assert "missed" not in str(relu)


def test_what_float32_shows_no_change_of_may_change():
    """The sine is there, and its gradient is not zero; a sum of 1e9 has no digits for it."""

    @jax.custom_vjp
    def f(x, unused):
        return jnp.sum(jnp.sin(x.astype(FLOAT32))) + jnp.float32(1e9)

    f.defvjp(lambda x, y: (f(x, y), None), lambda _, c: (jnp.zeros(8, FLOAT32),) * 2)
    report = gradcheck.check(f, normal(8), normal(8), argnums=(1, 0))
    assert [leaf.verdict for leaf in report.leaves] == ["pass", "inconclusive"]


def test_every_leaf_has_the_tolerance_of_its_dtype():
    def f(tree):
        wide = tree["wide"]
        return jnp.sum(wide**2) + jnp.sum(tree["narrow"].astype(wide.dtype) ** 2)

    ones = jnp.ones(3, FLOAT32)
    tree = {"wide": ones, "narrow": ones.astype(BFLOAT16)}
    wrong = {"wide": 2.02 * ones, "narrow": (2.02 * ones).astype(BFLOAT16)}
    report = gradcheck.check(f, tree, gradient=wrong)
    assert [leaf.tolerance for leaf in report.leaves] == [0.02, 0.001]
    assert [leaf.verdict for leaf in report.leaves] == ["pass", "fail"]
    assert "relative tolerance 0.001 and 0.02" in str(report)


def test_nans_beyond_the_domain_do_not_stop_an_audit_that_debugs_them():
    with jax.debug_nans(True), jax.debug_infs(True):
        report = gradcheck.check(summed(jnp.log), linspace(0.1, 2, 20))
    assert report.verdict == "pass"
