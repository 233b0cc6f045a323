"""The error of difference quotients over their step, as the slide's O(h) and O(h^2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

SCHEMES = ("forward", "central")
# From steps where round-off is all to some where the function has turned.
STEPS = 2.0 ** np.arange(-36, 3)


class Errors(NamedTuple):
    """Errors of both schemes along one direction.

    Attributes:
      dtype: of the arithmetic.
      steps: ``(steps,)``.
      forward: ``(steps,)`` relative errors of ``(f(x + h) - f(x)) / h``.
      central: ``(steps,)`` relative errors of ``(f(x + h) - f(x - h)) / 2h``.
    """

    dtype: str
    steps: np.ndarray
    forward: np.ndarray
    central: np.ndarray

    def slope(self, scheme: str, least: float, most: float) -> float:
        """Returns the power of the step by which the errors between two steps grow.

        NaN where there are no errors to speak of.
        """
        errors = getattr(self, scheme)
        ruled = (self.steps >= least) & (self.steps <= most) & (errors > 0)
        if ruled.sum() < 3:
            return float("nan")
        return float(np.polyfit(np.log(self.steps[ruled]), np.log(errors[ruled]), 1)[0])


def errors(f: Callable[[Any], jax.Array], x: Any, along: Any, dtype: str) -> Errors:
    """Measures both schemes against the exact slope, from `jax.jvp` in float64.

    Args:
      f: a scalar function of a pytree.
      x: the point.
      along: a direction, like ``x``.
      dtype: ``"float32"`` or ``"float64"``, in which values are computed.
    """
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (x, along))
        right = float(jax.jvp(f, (wide[0],), (wide[1],))[1])
        point, direction = jax.tree.map(lambda leaf: leaf.astype(dtype), wide)
        flat, unravel = ravel_pytree(point)
        step, _ = ravel_pytree(direction)

        def value(h):
            return f(unravel(flat + jnp.asarray(h, dtype) * step))

        signed = np.concatenate([STEPS, -STEPS, [0.0]])
        values = np.asarray(jax.lax.map(jax.jit(value), jnp.asarray(signed, dtype)), np.float64)
    above, below, here = np.split(values, [len(STEPS), 2 * len(STEPS)])
    forward, central = (above - here) / STEPS, (above - below) / (2 * STEPS)
    return Errors(dtype, STEPS, *(np.abs(each - right) / abs(right) for each in (forward, central)))
