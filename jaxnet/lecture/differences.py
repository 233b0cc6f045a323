"""The slide's two difference quotients, and their errors O(h) and O(h^2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

__all__ = ["SCHEMES", "STEPS", "Errors", "errors"]

SCHEMES = ("forward", "central")
# From steps with nothing but rounding errors to steps over which the function bends.
STEPS = 2.0 ** np.arange(-36, 3)


class Errors(NamedTuple):
    """The relative errors of both schemes along one direction.

    Attributes:
      dtype: the dtype in which the function was computed.
      steps: ``(steps,)`` h.
      forward: ``(steps,)`` errors of ``(f(x + h) - f(x)) / h``.
      central: ``(steps,)`` errors of ``(f(x + h) - f(x - h)) / 2h``.
    """

    dtype: str
    steps: np.ndarray
    forward: np.ndarray
    central: np.ndarray

    def slope(self, scheme: str, least: float, most: float) -> float:
        """Returns the power of h with which the error grows between two steps.

        NaN if fewer than three steps between them have an error above 0.
        """
        errors = getattr(self, scheme)
        chosen = (self.steps >= least) & (self.steps <= most) & (errors > 0)
        if chosen.sum() < 3:
            return float("nan")
        return float(np.polyfit(np.log(self.steps[chosen]), np.log(errors[chosen]), 1)[0])


def errors(f: Callable[[Any], jax.Array], x: Any, along: Any, *, dtype: str) -> Errors:
    """Measures the errors of both schemes; the exact slope is that of `jax.jvp` in float64.

    The page shows this function, so it has the slide's quotients as they are written there, without
    the care that `gradcheck.finite_difference` takes: here rounding is a part of what is measured.

    Args:
      f: a scalar function of a pytree.
      x: the point.
      along: the direction, a pytree like ``x``.
      dtype: ``"float32"`` or ``"float64"``, in which ``f`` is computed.
    """
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (x, along))
        exact = float(jax.jvp(f, (wide[0],), (wide[1],))[1])
        point, direction = jax.tree.map(lambda leaf: leaf.astype(dtype), wide)
        flat, unravel = ravel_pytree(point)
        step, _ = ravel_pytree(direction)

        def value(h: jax.Array) -> jax.Array:
            return f(unravel(flat + h * step))

        moves = jnp.asarray(np.concatenate([STEPS, -STEPS, [0.0]]), dtype)
        values = np.asarray(jax.lax.map(jax.jit(value), moves), np.float64)
    above, below, here = np.split(values, [len(STEPS), 2 * len(STEPS)])
    forward = (above - here) / STEPS
    central = (above - below) / (2 * STEPS)
    return Errors(dtype, STEPS, *(np.abs(each - exact) / abs(exact) for each in (forward, central)))
