"""Where a gradient is wrong, and the likely cause.

Wrong coordinates are found by comparison where the right gradient is known, otherwise by group
testing, without measuring every coordinate. Causes are patterns in the numbers: a factor, a sign, a
transpose, one row.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.gradcheck.arguments import Leaf, Span, coordinates
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = [
    "Coordinate",
    "Location",
    "compare",
    "lengths_of",
    "name_factor",
    "of_arrays",
    "of_slopes",
    "of_values",
    "search",
]

# Measures slopes along spans of a fixed direction: by the gradient, by differences, error bars.
Measure = Callable[[Sequence[Span]], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Coordinate(NamedTuple):
    """A coordinate of the gradient.

    Attributes:
      path: its name, e.g. ``params[0].weight[400, 10]``.
      given: value under audit.
      numerical: value by differences.
      bar: error bar of ``numerical``.
    """

    path: str
    given: float
    numerical: float
    bar: float


class Location(NamedTuple):
    """Which coordinates of a leaf are wrong.

    Attributes:
      worst: up to three wrong coordinates, the worst first.
      off: count of wrong coordinates.
      of: count of all coordinates.
      is_counted: whether ``off`` is exact; otherwise it is estimated from a sample.
    """

    worst: tuple[Coordinate, ...]
    off: int
    of: int
    is_counted: bool

    def __str__(self) -> str:
        about = "" if self.is_counted else "about "
        verb = "is" if self.off == 1 else "are"
        lines = [f"{about}{self.off:,} of {self.of:,} coordinates {verb} off"]
        lines += [
            f"{each.path} is {each.given:.6g}, by differences {each.numerical:.6g} ± {each.bar:.1g}"
            for each in self.worst
        ]
        return "\n".join(lines)


def compare(
    index: int, leaf: Leaf, given: np.ndarray, right: np.ndarray, at: Measure, tolerance: float
) -> Location:
    """Locates wrong coordinates where the right gradient is known.

    Args:
      index: of the leaf.
      leaf: the leaf, for names.
      given: ``(size,)`` gradient under audit.
      right: ``(size,)`` gradient that differences have confirmed.
      at: measures single coordinates, for the figures in the report.
      tolerance: relative error above which a coordinate is wrong.

    Example:
      >>> leaf = Leaf("x", (3,), np.dtype(float))
      >>> right, given = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 3.0])
      >>> print(compare(0, leaf, given, right, lambda spans: (given[1:2], right[1:2], [0.0]), 1e-3))
      1 of 3 coordinates is off
      x[1] is 2.5, by differences 2 ± 0
    """
    error = np.abs(given - right)
    error[~np.isfinite(error)] = np.inf
    off = error > tolerance * _typical(right)
    order = np.argsort(-error, kind="stable")[: min(THRESHOLDS.shown, int(off.sum()))]
    worst = _coordinates(index, leaf, order, at)
    return Location(worst, int(off.sum()), leaf.size, is_counted=True)


def search(
    index: int, leaf: Leaf, along: Measure, at: Measure, tolerance: float, norm: float, seed: int
) -> Location:
    """Locates wrong coordinates by group testing: the leaf, blocks of it, their blocks, and so on.

    A block's residual is the sum of its parts' residuals (all share one direction): a block with an
    error has a part with an error.

    Args:
      index: of the leaf.
      leaf: the leaf, for names.
      along: measures spans of a direction whose components are all of about the same size.
      at: measures single coordinates.
      tolerance: relative error that matters.
      norm: of the leaf's gradient.
      seed: draws a sample, if too many coordinates are wrong.

    Example:
      >>> right = np.ones(100)
      >>> given = np.where(np.arange(100) == 42, 3.0, right)
      >>> def at(spans):
      ...     pairs = [(given[s.start : s.stop].sum(), s.stop - s.start) for s in spans]
      ...     return (*np.array(pairs, float).T, np.zeros(len(spans)))
      >>> leaf = Leaf("x", (100,), np.dtype(float))
      >>> search(0, leaf, at, at, 1e-3, 10.0, 0).worst[0].path
      'x[42]'
    """
    blocks, is_sparse = [Span(index, 0, leaf.size)], True
    while any(block.stop - block.start > 1 for block in blocks):
        parts = [part for block in blocks for part in _cut(block)]
        given, numerical, bars = along(parts)
        residual = np.abs(given - numerical)
        least = np.maximum(THRESHOLDS.off_bars * bars, THRESHOLDS.off_share * tolerance * norm)
        order = np.argsort(-residual, kind="stable")
        found = [int(i) for i in order if residual[i] > least[i]] or [int(order[0])]
        if len(found) > THRESHOLDS.blocks:
            is_sparse, found = False, found[:1]
        if not is_sparse:
            found = found[:1]
        blocks = [parts[i] for i in found]
    worst = _coordinates(index, leaf, [block.start for block in blocks], at)
    if is_sparse:
        return Location(worst, len(blocks), leaf.size, is_counted=True)
    count = min(THRESHOLDS.location_sample, leaf.size)
    sample = np.random.default_rng(seed).choice(leaf.size, count, replace=False)
    given, numerical, bars = at(coordinates(index, sample))
    typical = np.maximum(np.abs(numerical), norm / np.sqrt(leaf.size))
    allowed = THRESHOLDS.off_bars * bars + tolerance * typical
    share = np.mean(np.abs(given - numerical) > allowed)
    return Location(worst, max(len(worst), round(share * leaf.size)), leaf.size, count == leaf.size)


def _coordinates(
    index: int, leaf: Leaf, places: Sequence[int] | np.ndarray, at: Measure
) -> tuple[Coordinate, ...]:
    if not len(places):
        return ()
    given, numerical, bars = at(coordinates(index, places))
    found = [
        Coordinate(leaf.place(int(place)), float(given[i]), float(numerical[i]), float(bars[i]))
        for i, place in enumerate(places)
    ]
    order = np.argsort(-np.abs(given - numerical), kind="stable")[: THRESHOLDS.shown]
    return tuple(found[i] for i in order)


def _cut(block: Span) -> list[Span]:
    count = min(THRESHOLDS.parts, block.stop - block.start)
    ends = np.linspace(block.start, block.stop, count + 1)
    ends = np.round(ends).astype(int)
    return [Span(block.leaf, int(a), int(b)) for a, b in itertools.pairwise(ends)]


def _typical(right: np.ndarray) -> np.ndarray:
    # For a coordinate near zero, the error is relative to the root mean square of all.
    return np.maximum(np.abs(right), np.linalg.norm(right) / np.sqrt(len(right)))


# Causes.


def of_values(given: np.ndarray, leaf: Leaf) -> str:
    """Describes NaN and infinities in a gradient; empty if there are none.

    Args:
      given: ``(size,)`` gradient under audit.
      leaf: the leaf, for names.

    Example:
      >>> of_values(np.array([1.0, np.inf]), Leaf("x", (2,), np.dtype(float)))
      'infinite in 1 of 2 places, first at x[1]: an overflow, or a division, ...'
    """
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
    """Names a constant factor between two gradients; empty if there is none.

    Args:
      given: ``(k,)`` slopes, or coordinates, of the gradient under audit.
      right: ``(k,)`` slopes, or coordinates, of the right gradient.
      lengths: axes that may have been summed over, from `lengths_of`.

    Example:
      >>> of_slopes(np.array([2.0, 4.0]), np.array([1.0, 2.0]), {})
      'a factor of 2'
    """
    norm = float(right @ right)
    if norm == 0:
        return "not zero, where differences are"
    if not np.any(given):
        return "zero: the gradient is stopped, or never passed on"
    factor = float(given @ right) / norm
    # Next to zero, any small multiple is close: so the rest must be small beside ``given``, too.
    size = min(np.linalg.norm(given - right), np.linalg.norm(given))
    if np.linalg.norm(given - factor * right) > THRESHOLDS.unexplained * size:
        return ""
    # For a single number, any error is a factor: report it only if it has a name.
    return name_factor(factor, lengths) or (f"a factor of {factor:.6g}" if len(given) > 1 else "")


def name_factor(factor: float, lengths: Mapping[int, str]) -> str:
    """Names the likely cause of a factor between a gradient and the right one; empty if unknown.

    Example:
      >>> name_factor(1 / 32, {32: "the length of an axis"})
      'a factor of 1/32, the length of an axis: a sum for a mean, or the reverse'
    """

    def close(value):
        return abs(factor - value) <= THRESHOLDS.named_factor * abs(value)

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
    """Names a pattern among the coordinates of a wrong gradient; empty if there is none.

    Args:
      given: ``(size,)`` gradient under audit.
      right: ``(size,)`` right gradient.
      argument: ``(size,)`` values of the leaf.
      leaf: its shape, and whether it is complex.
      tolerance: relative error above which a coordinate is wrong.

    Example:
      >>> right = np.array([1.0, 2.0, 3.0, 4.0])
      >>> of_arrays(right[[0, 2, 1, 3]], right, right, Leaf("x", (2, 2), np.dtype(float)), 1e-3)
      'transposed'
    """
    shape = leaf.shape
    if leaf.is_complex:  # real and imaginary parts are no axis of the leaf
        given, right, argument = (
            np.ascontiguousarray(each).view(np.complex128) for each in (given, right, argument)
        )
    error = given - right
    size = np.linalg.norm(error)
    if size == 0:
        return ""

    def explains(pattern):
        return np.linalg.norm(given - pattern) < THRESHOLDS.unexplained * size

    if leaf.is_complex and explains(right.conj()):
        return "the imaginary parts have the wrong sign: a conjugate"
    if len(given) == 1:  # any pattern fits
        return ""
    if len(shape) == 2 and shape[0] == shape[1] and explains(right.reshape(shape).T.ravel()):
        return "transposed"
    off = np.abs(error) > tolerance * np.linalg.norm(right) / np.sqrt(len(right))
    # Before the weight decay: of a constant argument, that looks the same.
    if off.all() and np.allclose(error, error[0], rtol=THRESHOLDS.unexplained, atol=0):
        return f"a constant too many, {error[0]:.3g}"
    if np.any(argument):
        multiple = np.vdot(argument, error).real / np.vdot(argument, argument).real
        if explains(right + multiple * argument):
            return f"a term too many, {multiple:.3g} times the argument: a weight decay"
    limit = np.max(np.abs(given))
    clipped = np.isclose(np.abs(given), limit, rtol=THRESHOLDS.clipped)
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
    """Returns the lengths of all axes in the arguments, and products of up to three, in words.

    A mean may be over several axes of one array.

    Example:
      >>> lengths_of(np.ones((2, 3)))
      {2: 'the length of an axis', 3: 'the length of an axis', 6: 'the lengths of axes, 2 x 3'}
    """
    shapes = [[each for each in np.shape(leaf) if each > 1] for leaf in jax.tree.leaves(args)]
    found: dict[int, str] = {}
    for count in range(1, THRESHOLDS.mean_axes + 1):  # the fewest axes first
        for axes in sorted({axes for s in shapes for axes in itertools.combinations(s, count)}):
            product = " x ".join(map(str, axes))
            words = f"the lengths of axes, {product}" if count > 1 else "the length of an axis"
            found.setdefault(math.prod(axes), words)
    return found
