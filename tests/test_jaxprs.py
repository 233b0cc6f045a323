import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnet import jaxprs


@jax.custom_vjp
def custom(x):
    return jnp.sin(x)


custom.defvjp(lambda x: (custom(x), x), lambda x, cotangent: (cotangent,))

FUNCTIONS = {
    "one result": lambda x: x * 2,
    "several results": lambda x: jnp.concatenate(jnp.split(x, 2)),
    "jit": lambda x: jax.jit(jnp.cumsum)(x),
    "custom_vjp": custom,
    "checkpoint": jax.checkpoint(jnp.cos),
    "scan": lambda x: lax.scan(lambda c, y: (c + y, c), jnp.zeros((), x.dtype), x)[1],
    "cond": lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_equations_one_by_one_are_the_function(name):
    f, x = FUNCTIONS[name], jnp.linspace(-1, 1, 4)
    closed = jax.make_jaxpr(f)(x)
    values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= zip(closed.jaxpr.invars, [2 * x], strict=True)
    for equation in closed.jaxpr.eqns:
        results = jaxprs.bind(equation, jaxprs.read(equation.invars, values))
        values |= zip(equation.outvars, results, strict=True)
    (found,) = jaxprs.read(closed.jaxpr.outvars, values)
    np.testing.assert_allclose(found, f(2 * x), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "calls"), [("jit", True), ("custom_vjp", True), ("checkpoint", True), ("scan", False)]
)
def test_calls_hand_on_their_operands(name, calls):
    closed = jax.make_jaxpr(FUNCTIONS[name])(jnp.ones(4))
    (equation,) = (each for each in closed.jaxpr.eqns if list(jaxprs.inner_jaxprs(each)))
    called = jaxprs.called(equation)
    assert (called is not None) == calls
    if called is not None:
        assert len(called.jaxpr.invars) == len(equation.invars)


def test_arguments_have_the_names_of_the_signature():
    def f(params, /, inputs, *others, key=None):
        del params, inputs, others, key

    assert jaxprs.argument_names(f, 4) == ["params", "inputs", "args[2]", "args[3]"]
    assert jaxprs.argument_names(functools.partial(f, 1), 2) == ["inputs", "args[1]"]
    assert jaxprs.argument_names(max, 1) == ["args[0]"]
