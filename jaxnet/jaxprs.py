"""Reading and evaluating jaxprs, across versions of JAX; `gradcheck` and `circuit` build on it."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

__all__ = [
    "CALLS",
    "argument_names",
    "bind",
    "called",
    "inner_jaxprs",
    "is_inexact",
    "literal",
    "read",
]

# Primitives that hand their operands on to one inner jaxpr, one by one, and return its results.
CALLS = frozenset(
    {
        *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
        *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
    }
)


def bind(equation: core.JaxprEqn, operands: Sequence[Any], **changed: Any) -> list[Any]:
    """Evaluates an equation for other operands.

    Args:
      equation: of a jaxpr.
      operands: as many arrays as it has inputs.
      **changed: parameters of the primitive that replace the equation's.

    Returns:
      Its results, one of them in a list, too.

    Example:
      >>> (equation,) = jax.make_jaxpr(lambda x: x * 2.0)(1.0).jaxpr.eqns
      >>> bind(equation, [jnp.asarray(3.0), jnp.asarray(5.0)])
      [Array(15., dtype=float32...)]
    """
    bound = equation.primitive.get_bind_params(equation.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # by JAX's version
    with equation.ctx.manager:
        results = equation.primitive.bind(*functions, *operands, **{**params, **changed})
    return list(results) if equation.primitive.multiple_results else [results]


def called(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Returns the jaxpr that an equation of one of the `CALLS` evaluates; None of any other.

    Example:
      >>> (equation,) = jax.make_jaxpr(jax.jit(jnp.sin))(1.0).jaxpr.eqns
      >>> called(equation).eqns[0].primitive.name
      'sin'
    """
    if equation.primitive.name not in CALLS:
        return None
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # by primitive, and by JAX's version
    inner = next(equation.params[name] for name in names if name in equation.params)
    return core.ClosedJaxpr(inner, ()) if isinstance(inner, core.Jaxpr) else inner


def inner_jaxprs(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs in an equation's parameters: of a call, a loop, the branches of a cond.

    Example:
      >>> jaxpr = jax.make_jaxpr(lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x))(1.0)
      >>> [inner.eqns[0].primitive.name for inner in inner_jaxprs(jaxpr.eqns[-1])]
      ['cos', 'sin']
    """
    for param in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(param):
            yield getattr(param, "jaxpr", param)


def literal(atom: core.Literal) -> np.ndarray:
    """Returns the value of a constant that stands in a jaxpr, of the dtype that it has there.

    Example:
      >>> (equation,) = jax.make_jaxpr(lambda x: x * 2)(jnp.float32(1)).jaxpr.eqns
      >>> literal(equation.invars[1])
      array(2., dtype=float32)
    """
    return np.asarray(atom.val, atom.aval.dtype)  # pyright: ignore[reportAttributeAccessIssue]


def read(atoms: Iterable[Any], values: Mapping[core.Var, Any]) -> list[Any]:
    """Returns the values of variables, and of literals.

    Example:
      >>> jaxpr = jax.make_jaxpr(lambda x: x * 2)(jnp.float32(1)).jaxpr
      >>> [float(each) for each in read(jaxpr.eqns[0].invars, {jaxpr.invars[0]: 7.0})]
      [7.0, 2.0]
    """
    return [literal(atom) if isinstance(atom, core.Literal) else values[atom] for atom in atoms]


def is_inexact(variable: Any) -> bool:
    """Returns whether a variable of a jaxpr is floating-point or complex: gradients flow.

    Example:
      >>> jaxpr = jax.make_jaxpr(lambda x, n: x)(1.0, 2).jaxpr
      >>> [is_inexact(variable) for variable in jaxpr.invars]
      [True, False]
    """
    dtype = getattr(variable.aval, "dtype", None)  # a token has none
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """Returns names of a function's positional arguments, ``args[i]`` where it has none.

    Example:
      >>> argument_names(lambda params, *batch: 0, 3)
      ['params', 'args[1]', 'args[2]']
    """
    names = [f"args[{number}]" for number in range(count)]
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):  # a builtin, or a callable of another make
        return names
    for number, parameter in enumerate(parameters[:count]):
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        names[number] = parameter.name
    return names


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)
