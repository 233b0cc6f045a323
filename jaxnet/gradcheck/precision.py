"""What a function's jaxpr rounds its arguments to, before anything is measured.

A function of float64 arguments may convert them to float32 or bfloat16, draw other random numbers
than it does in float32, or round to integers. Values show that only to steps that are wide enough;
the jaxpr always does.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend import core

from jaxnet import jaxprs

__all__ = ["Rounding", "examine", "is_reached"]

_STEPPED = {"round", "floor", "ceil"}
_RANDOM = {"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"}


class Rounding(NamedTuple):
    """How a jaxpr rounds what depends on its differentiated arguments.

    Attributes:
      narrowest: name of the least precise dtype among them, ``"float32"`` say.
      epsilon: relative spacing of that dtype.
      tiny: its smallest normal number.
      is_stepped: whether something is rounded to integers.
      draws: random numbers that are drawn: name of the primitive, and shape with dtype.
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


def examine(jaxpr: core.ClosedJaxpr, differentiated: Sequence[bool]) -> Rounding:
    """Returns how a jaxpr rounds what depends on some of its arguments.

    Args:
      jaxpr: of a function of arrays.
      differentiated: for each of its arguments, whether it counts; at least one floating-point
        argument does.

    Example:
      >>> import jax
      >>> jaxpr = jax.make_jaxpr(lambda x: jnp.sum(x.astype("bfloat16")))(jnp.ones(3))
      >>> examine(jaxpr, [True]).narrowest
      'bfloat16'
    """
    found = _Findings(set(), set(), [], [])
    _walk(jaxpr.jaxpr, differentiated, found)
    widths = [
        (float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny), str(dtype))
        for dtype in found.dtypes
    ]
    widths += [(2.0**-bits, 0.0, f"{bits} bits") for bits in found.mantissas]
    epsilon, _, narrowest = max(widths)
    tiny = max(width[1] for width in widths)
    stepped = bool(found.primitives & _STEPPED) or "to integers" in found.primitives
    return Rounding(narrowest, epsilon, tiny, stepped, tuple(found.draws))


def is_reached(jaxpr: core.ClosedJaxpr, position: int) -> bool:
    """Returns whether any result may depend on the argument at this position.

    Example:
      >>> import jax
      >>> jaxpr = jax.make_jaxpr(lambda used, unused: used)(1.0, 2.0)
      >>> is_reached(jaxpr, 0), is_reached(jaxpr, 1)
      (True, False)
    """
    only = [place == position for place in range(len(jaxpr.jaxpr.invars))]
    return any(_walk(jaxpr.jaxpr, only, _Findings(set(), set(), [], [])))


def _walk(jaxpr: core.Jaxpr, differentiated: Iterable[bool], found: _Findings) -> list[bool]:
    """Adds to ``found`` what is on the way, and returns which results depend on the arguments."""
    reached = {v for v, flag in zip(jaxpr.invars, differentiated, strict=True) if flag}
    found.dtypes.update(map(_real_dtype, filter(jaxprs.is_inexact, reached)))
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        flags = [not isinstance(v, core.Literal) and v in reached for v in equation.invars]
        if name in _RANDOM:
            found.draws.extend((name, str(v.aval)) for v in equation.outvars)
        results = [any(flags)] * len(equation.outvars)
        for inner in jaxprs.inner_jaxprs(equation):
            # A loop feeds its results back into itself: all count as reached.
            one_by_one = name in jaxprs.CALLS and len(inner.invars) == len(flags)
            of_inner = _walk(
                inner, flags if one_by_one else [any(flags)] * len(inner.invars), found
            )
            if one_by_one and len(of_inner) == len(results):
                results = of_inner
        reached.update(v for v, flag in zip(equation.outvars, results, strict=True) if flag)
        if not any(flags):
            continue
        inexact = [v for v in equation.outvars if jaxprs.is_inexact(v)]
        found.dtypes.update(map(_real_dtype, inexact))
        found.primitives.add(name)
        if name == "convert_element_type" and not inexact and jaxprs.is_inexact(equation.invars[0]):
            found.primitives.add("to integers")
        if name == "reduce_precision":
            found.mantissas.append(equation.params["mantissa_bits"])
    return [not isinstance(v, core.Literal) and v in reached for v in jaxpr.outvars]


def _real_dtype(variable: Any) -> Any:
    return jnp.finfo(variable.aval.dtype).dtype
