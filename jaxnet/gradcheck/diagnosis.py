"""The likely cause of a wrong gradient, in words, where the numbers show a pattern."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxnet.gradcheck.arguments import Leaf

_CLOSE = 0.02  # of the error that a pattern may leave unexplained


def of_values(given: np.ndarray, leaf: Leaf) -> str:
    """Names NaN and infinities; empty if there are none."""
    bad = np.flatnonzero(~np.isfinite(given))
    if not len(bad):
        return ""
    kind = "NaN" if np.isnan(given[bad[0]]) else "infinite"
    places = "everywhere" if len(bad) == len(given) else f"in {len(bad):,} of {len(given):,} places"
    return (
        f"{kind} {places}, first at {leaf.place(int(bad[0]))}: the branch of a where that is not "
        f"taken, or a root or logarithm at 0"
    )


def of_slopes(given: np.ndarray, right: np.ndarray, lengths: Sequence[int]) -> str:
    """Names a constant factor between slopes.

    Args:
      given: ``(k,)`` slopes, or coordinates, under audit.
      right: ``(k,)`` what they should be.
      lengths: of the axes of the arguments, of which one may be a batch.
    """
    norm = float(right @ right)
    if norm == 0:
        return "not zero, where f does not depend on the argument"
    if not np.any(given):
        return "zero: the gradient is stopped, or never passed on"
    factor = float(given @ right) / norm
    if np.linalg.norm(given - factor * right) > _CLOSE * np.linalg.norm(given - right):
        return ""
    return name_factor(factor, lengths)


def name_factor(factor: float, lengths: Sequence[int]) -> str:
    """Returns in words what a gradient that is ``factor`` times the right one suffers from."""

    def close(value):
        return abs(factor - value) <= 1e-3 * abs(value)

    if close(-1):
        return "the sign: it is minus the right gradient"
    for value, name in ((2, "2"), (0.5, "1/2"), (-2, "-2"), (-0.5, "-1/2")):
        if close(value):
            return f"a factor of {name}"
    for length in sorted({each for each in lengths if each > 2}):
        for value, name in ((length, str(length)), (1 / length, f"1/{length}")):
            if close(value):
                return (
                    f"a factor of {name}, the length of an axis: a sum for a mean, or the reverse"
                )
    return f"a factor of {factor:.6g}"


def of_arrays(
    given: np.ndarray,
    right: np.ndarray,
    argument: np.ndarray,
    shape: tuple[int, ...],
    tolerance: float,
) -> str:
    """Names a pattern that only shows in the arrays.

    Args:
      given: ``(size,)`` gradient under audit.
      right: ``(size,)`` right one.
      argument: ``(size,)`` values of the leaf itself.
      shape: of the leaf.
      tolerance: relative error from which on a coordinate counts as off.
    """
    error = given - right
    size = np.linalg.norm(error)
    if size == 0:
        return ""
    if len(shape) == 2 and shape[0] == shape[1] > 1:
        transposed = right.reshape(shape).T.ravel()
        if np.linalg.norm(given - transposed) < _CLOSE * size:
            return "transposed"
    if np.any(argument):
        multiple = (error @ argument) / (argument @ argument)
        if np.linalg.norm(error - multiple * argument) < _CLOSE * size:
            return f"a term too many, {multiple:.3g} times the argument: a weight decay"
    limit = np.max(np.abs(given))
    clipped = np.isclose(np.abs(given), limit, rtol=1e-6)
    unexplained = np.linalg.norm(np.clip(right, -limit, limit) - given)
    if 1 < clipped.sum() < len(given) / 2 and unexplained < _CLOSE * size:
        return f"clipped at {limit:.3g}"
    off = np.abs(error) > tolerance * np.linalg.norm(right) / np.sqrt(len(right))
    if off.all() and np.allclose(error, error[0], rtol=_CLOSE, atol=0):
        return f"a constant too many, {error[0]:.3g}"
    zero = off & (given == 0)
    some = "zero" if zero.sum() == off.sum() else "off"
    if some == "zero" or off.sum() > 1:
        place = _one_slice(off.reshape(shape)) if shape else ""
        if place:
            return f"only {place} is {some}"
    if some == "zero":
        return "zero where it should not be: a mask, or a gradient stopped for some coordinates"
    return ""


def _one_slice(off: np.ndarray) -> str:
    if off.ndim < 2:
        return ""
    for axis in range(off.ndim):
        others = tuple(i for i in range(off.ndim) if i != axis)
        hit = np.flatnonzero(off.any(axis=others))
        if len(hit) == 1 and off.sum() > 1:
            if off.ndim == 2:
                return f"{('row', 'column')[axis]} {hit[0]}"
            return f"index {hit[0]} of axis {axis}"
    return ""


def lengths_of(args: Any) -> list[int]:
    """Returns the lengths of all axes of all arrays in the arguments."""
    return [length for leaf in jax.tree.leaves(args) for length in np.shape(leaf)]
