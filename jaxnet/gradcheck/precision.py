"""What a function's program says of its precision, before anything is measured.

A function that is given float64 may still pass what it is given through float32 or bfloat16, draw
other random numbers than in float32, or round to integers. Its values alone betray that only to
steps that are wide enough; its equations always do.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

_STEPPED = {"round", "floor", "ceil"}
_RANDOM = {"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"}
# Their sub-programs are given the operands of the equation, one by one.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


class Traits(NamedTuple):
    """What happens to an argument on its way through a program.

    Attributes:
      narrowest: the dtype of the least precision that it passes through.
      epsilon: relative spacing there.
      tiny: smallest number there that has all its digits.
      is_stepped: whether it is rounded to integers.
      draws: the random numbers that are drawn: primitive, shape and dtype of each.
    """

    narrowest: str
    epsilon: float
    tiny: float
    is_stepped: bool
    draws: tuple[tuple[str, str], ...]


class _Findings(NamedTuple):
    dtypes: set[Any]
    primitives: set[str]
    draws: list[tuple[str, str]]
    mantissas: list[int]


def examine(program: core.ClosedJaxpr, differentiated: Sequence[bool]) -> Traits:
    """Returns the traits of a program.

    Args:
      program: of a function of arrays.
      differentiated: for each of its arguments, whether it is.
    """
    found = _Findings(set(), set(), [], [])
    _walk(program.jaxpr, differentiated, found)
    widths = [
        (float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny), str(dtype))
        for dtype in found.dtypes
    ]
    widths += [(2.0**-bits, 0.0, f"{bits} bits") for bits in found.mantissas]
    epsilon, _, narrowest = max(widths)
    tiny = max(width[1] for width in widths)
    stepped = bool(found.primitives & _STEPPED) or "to integers" in found.primitives
    return Traits(narrowest, epsilon, tiny, stepped, tuple(found.draws))


def is_reached(program: core.ClosedJaxpr, position: int) -> bool:
    """Returns whether any result may depend on the argument at this position."""
    only = [place == position for place in range(len(program.jaxpr.invars))]
    return any(_walk(program.jaxpr, only, _Findings(set(), set(), [], [])))


def _walk(jaxpr: core.Jaxpr, differentiated: Iterable[bool], found: _Findings) -> list[bool]:
    """Notes what is found on the way, and returns which results are reached."""
    reached = {v for v, flag in zip(jaxpr.invars, differentiated, strict=True) if flag}
    found.dtypes.update(map(_real_dtype, filter(_is_inexact, reached)))
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        flags = [not isinstance(v, core.Literal) and v in reached for v in equation.invars]
        if name in _RANDOM:
            found.draws.extend((name, str(v.aval)) for v in equation.outvars)
        results = [any(flags)] * len(equation.outvars)
        for inner in _programs_in(equation):
            # A loop hands its results on to itself: then all are taken to be reached.
            one_by_one = name in _CALLS and len(inner.invars) == len(flags)
            of_inner = _walk(
                inner, flags if one_by_one else [any(flags)] * len(inner.invars), found
            )
            if one_by_one and len(of_inner) == len(results):
                results = of_inner
        reached.update(v for v, flag in zip(equation.outvars, results, strict=True) if flag)
        if not any(flags):
            continue
        inexact = [v for v in equation.outvars if _is_inexact(v)]
        found.dtypes.update(map(_real_dtype, inexact))
        found.primitives.add(name)
        if name == "convert_element_type" and not inexact and _is_inexact(equation.invars[0]):
            found.primitives.add("to integers")
        if name == "reduce_precision":
            found.mantissas.append(equation.params["mantissa_bits"])
    return [not isinstance(v, core.Literal) and v in reached for v in jaxpr.outvars]


def _programs_in(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    for param in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program):
        if _is_program(param):
            yield getattr(param, "jaxpr", param)


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def _is_inexact(variable: Any) -> bool:
    dtype = getattr(variable.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _real_dtype(variable: Any) -> Any:
    return jnp.finfo(variable.aval.dtype).dtype
