"""Where in a leaf a gradient is wrong, without measuring every coordinate."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxnet.gradcheck.arguments import Leaf
from jaxnet.gradcheck.reference import Span

_PARTS = 16  # into which a block of coordinates is cut
_BLOCKS = 16  # that are followed at once; more are off in too many places to be listed
_SHOWN = 3  # coordinates that are listed
_SAMPLE = 64  # coordinates from which a share of all is estimated

# Given a span, slopes along a fixed direction: by the gradient, by differences, and the bars.
Measure = Callable[[Sequence[Span]], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Coordinate(NamedTuple):
    """A coordinate of the gradient.

    Attributes:
      path: e.g. ``params[0].weight[400, 10]``.
      given: value under audit.
      numerical: value by differences.
      bar: by which the latter may be off.
    """

    path: str
    given: float
    numerical: float
    bar: float


class Location(NamedTuple):
    """Which coordinates of a leaf are off.

    Attributes:
      worst: the coordinates that are most off, the worst first.
      off: how many are off.
      of: how many there are.
      is_counted: whether ``off`` is a count; else it is estimated from a sample.
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
    """Returns what is off where the right gradient is known in full.

    Args:
      index: of the leaf.
      leaf: its names.
      given: ``(size,)`` gradient under audit.
      right: ``(size,)`` gradient that differences have confirmed.
      at: measures single coordinates, for the figures in the report.
      tolerance: relative error from which on a coordinate counts as off.
    """
    error = np.abs(given - right)
    error[~np.isfinite(error)] = np.inf
    off = error > tolerance * _typical(right)
    order = np.argsort(-error, kind="stable")[: min(_SHOWN, int(off.sum()))]
    worst = _coordinates(index, leaf, order, at)
    return Location(worst, int(off.sum()), leaf.size, is_counted=True)


def search(
    index: int, leaf: Leaf, along: Measure, at: Measure, tolerance: float, norm: float, seed: int
) -> Location:
    """Finds what is off by group testing: a leaf, its blocks, their blocks, a coordinate.

    A block's residual is the sum of its parts' (they share one direction), so that a block that is
    off has a part that is.

    Args:
      index: of the leaf.
      leaf: its names.
      along: measures spans of a direction whose numbers are all of about the same size.
      at: measures single coordinates.
      tolerance: relative error that matters.
      norm: of the leaf's gradient.
      seed: draws the sample.
    """
    blocks, is_sparse = [Span(index, 0, leaf.size)], True
    while any(block.stop - block.start > 1 for block in blocks):
        parts = [part for block in blocks for part in _cut(block)]
        given, numerical, bars = along(parts)
        residual = np.abs(given - numerical)
        least = np.maximum(2 * bars, 0.3 * tolerance * norm)
        order = np.argsort(-residual, kind="stable")
        found = [int(i) for i in order if residual[i] > least[i]] or [int(order[0])]
        if len(found) > _BLOCKS:
            is_sparse, found = False, found[:1]
        if not is_sparse:
            found = found[:1]
        blocks = [parts[i] for i in found]
    worst = _coordinates(index, leaf, [block.start for block in blocks], at)
    if is_sparse:
        return Location(worst, len(blocks), leaf.size, is_counted=True)
    count = min(_SAMPLE, leaf.size)
    sample = np.random.default_rng(seed).choice(leaf.size, count, replace=False)
    given, numerical, bars = at([Span(index, int(i), int(i) + 1) for i in sample])
    typical = np.maximum(np.abs(numerical), norm / np.sqrt(leaf.size))
    share = np.mean(np.abs(given - numerical) > 2 * bars + tolerance * typical)
    return Location(worst, max(len(worst), round(share * leaf.size)), leaf.size, count == leaf.size)


def _coordinates(
    index: int, leaf: Leaf, places: Sequence[int] | np.ndarray, at: Measure
) -> tuple[Coordinate, ...]:
    if not len(places):
        return ()
    given, numerical, bars = at([Span(index, int(place), int(place) + 1) for place in places])
    found = [
        Coordinate(leaf.place(int(place)), float(given[i]), float(numerical[i]), float(bars[i]))
        for i, place in enumerate(places)
    ]
    order = np.argsort(-np.abs(given - numerical), kind="stable")[:_SHOWN]
    return tuple(found[i] for i in order)


def _cut(block: Span) -> list[Span]:
    ends = np.linspace(block.start, block.stop, min(_PARTS, block.stop - block.start) + 1)
    ends = np.round(ends).astype(int)
    return [Span(block.leaf, int(a), int(b)) for a, b in itertools.pairwise(ends)]


def _typical(right: np.ndarray) -> np.ndarray:
    # What counts as off in a coordinate near zero is told by the others.
    return np.maximum(np.abs(right), np.linalg.norm(right) / np.sqrt(len(right)))
