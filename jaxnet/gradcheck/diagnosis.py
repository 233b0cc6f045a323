"""The likely cause of a wrong gradient, in words, where the numbers show a pattern."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxnet.gradcheck.arguments import Leaf

_CLOSE = 0.02  # of the error that a pattern may leave unexplained
_AXES = 3  # that one mean is taken over, at most: of a batch of images, all but the channels


def of_values(given: np.ndarray, leaf: Leaf) -> str:
    """Names NaN and infinities; empty if there are none."""
    bad = np.flatnonzero(~np.isfinite(given))
    if not len(bad):
        return ""
    kind, cause = "infinite", "an overflow, or a division, a root or a logarithm at 0"
    if np.isnan(given[bad[0]]):
        kind = "NaN"
        cause = "the branch of a where that is not taken, or a root or logarithm at 0"
    places = "everywhere" if len(bad) == len(given) else f"in {len(bad):,} of {len(given):,} places"
    return f"{kind} {places}, first at {leaf.place(int(bad[0]))}: {cause}"


def of_slopes(given: np.ndarray, right: np.ndarray, lengths: Mapping[int, str]) -> str:
    """Names a constant factor between slopes.

    Args:
      given: ``(k,)`` slopes, or coordinates, under audit.
      right: ``(k,)`` what they should be.
      lengths: what may have been summed over, of `lengths_of`.
    """
    norm = float(right @ right)
    if norm == 0:
        return "not zero, where differences are"
    if not np.any(given):
        return "zero: the gradient is stopped, or never passed on"
    factor = float(given @ right) / norm
    # What is next to nothing is next to any small multiple: it must be one itself, too.
    size = min(np.linalg.norm(given - right), np.linalg.norm(given))
    if np.linalg.norm(given - factor * right) > _CLOSE * size:
        return ""
    # Of a single number, any error is a factor: only one that has a name says anything.
    return name_factor(factor, lengths) or (f"a factor of {factor:.6g}" if len(given) > 1 else "")


def name_factor(factor: float, lengths: Mapping[int, str]) -> str:
    """Returns in words what a gradient that is ``factor`` times the right one suffers from.

    Empty for a factor that has no name.
    """

    def close(value):
        return abs(factor - value) <= 1e-3 * abs(value)

    if close(-1):
        return "the sign: it is minus the right gradient"
    for value, name in ((2, "2"), (0.5, "1/2"), (-2, "-2"), (-0.5, "-1/2")):
        if close(value):
            return f"a factor of {name}"
    for length, words in lengths.items():
        for value, name in ((length, str(length)), (1 / length, f"1/{length}")):
            if close(value):
                return f"a factor of {name}, {words}: a sum for a mean, or the reverse"
    return ""


def of_arrays(
    given: np.ndarray, right: np.ndarray, argument: np.ndarray, leaf: Leaf, tolerance: float
) -> str:
    """Names a pattern that only shows in the arrays.

    Args:
      given: ``(size,)`` gradient under audit.
      right: ``(size,)`` right one.
      argument: ``(size,)`` values of the leaf itself.
      leaf: its shape, and whether it is complex.
      tolerance: relative error from which on a coordinate counts as off.
    """
    shape = leaf.shape
    if leaf.is_complex:  # pairs of coordinates, which no axis of the leaf runs along
        given, right, argument = (
            np.ascontiguousarray(each).view(np.complex128) for each in (given, right, argument)
        )
    error = given - right
    size = np.linalg.norm(error)
    if size == 0:
        return ""

    def explains(pattern):
        return np.linalg.norm(given - pattern) < _CLOSE * size

    if leaf.is_complex and explains(right.conj()):
        return "the imaginary parts have the wrong sign: a conjugate"
    if len(given) == 1:  # any pattern fits
        return ""
    if len(shape) == 2 and shape[0] == shape[1] and explains(right.reshape(shape).T.ravel()):
        return "transposed"
    off = np.abs(error) > tolerance * np.linalg.norm(right) / np.sqrt(len(right))
    # Before the weight decay, of which an argument that is the same everywhere looks like this.
    if off.all() and np.allclose(error, error[0], rtol=_CLOSE, atol=0):
        return f"a constant too many, {error[0]:.3g}"
    if np.any(argument):
        multiple = np.vdot(argument, error).real / np.vdot(argument, argument).real
        if explains(right + multiple * argument):
            return f"a term too many, {multiple:.3g} times the argument: a weight decay"
    limit = np.max(np.abs(given))
    clipped = np.isclose(np.abs(given), limit, rtol=1e-6)
    if clipped.sum() > 1 and explains(right * (limit / np.maximum(np.abs(right), limit))):
        return f"clipped at {limit:.3g}"
    zero = off & (given == 0)
    some = "zero" if zero.sum() == off.sum() else "off"
    if some == "zero" or off.sum() > 1:
        place = _one_slice(off.reshape(shape))
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


def lengths_of(args: Any) -> dict[int, str]:
    """Returns the lengths of axes of arrays in the arguments, and products of them, with words.

    A mean may be taken over several axes of one array.
    """
    shapes = [[each for each in np.shape(leaf) if each > 1] for leaf in jax.tree.leaves(args)]
    found: dict[int, str] = {}
    for count in range(1, _AXES + 1):  # the fewest axes first
        for axes in sorted({axes for s in shapes for axes in itertools.combinations(s, count)}):
            product = " x ".join(map(str, axes))
            words = f"the lengths of axes, {product}" if count > 1 else "the length of an axis"
            found.setdefault(math.prod(axes), words)
    return found
