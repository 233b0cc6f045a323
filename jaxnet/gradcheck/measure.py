"""The function near a point: its slopes along random directions, measured from its values."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradcheck import slopes
from jaxnet.gradcheck.arguments import Argument, Span, coordinates
from jaxnet.gradcheck.point import Compiled, Point, scale
from jaxnet.gradcheck.slopes import Slopes
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = ["Gauge", "Measurement", "remember_last"]


class Gauge(NamedTuple):
    """How to measure slopes along directions of one leaf.

    Attributes:
      unit: the leaf's scale (root mean square, or 1); steps are relative to it.
      step: the step that measures best.
      finest: the finest step that makes sense.
      noise: standard deviation of the round-off in a value of the function.
    """

    unit: float
    step: float
    finest: float
    noise: float


class Measurement(Point):
    """Slopes of a function at a point, along random directions of each leaf.

    They are measured on demand and kept, so that many gradients can be compared with them.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnet.gradcheck import arguments, point
      >>> f, args = jnp.sin, (jnp.asarray(0.0),)
      >>> argument = arguments.examine(f, args, 0)
      >>> found = Measurement(point.Compiled(f, 0), argument, args, (0,)).tabulate(0)
      >>> bool(abs(found.value[0] - 1) <= found.bar[0] < 1e-9)
      True
    """

    def __init__(
        self, compiled: Compiled, argument: Argument, args: tuple[Any, ...], seed: tuple[int, ...]
    ):
        """Evaluates the function; see `Point`."""
        super().__init__(compiled, argument, args, seed)
        self._slopes: list[list[Slopes]] = [[] for _ in argument.leaves]  # a direction each
        self._tabulated: dict[int, Slopes] = {}
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @functools.cached_property
    def gauges(self) -> dict[int, Gauge]:
        """How to measure along each leaf; found along the first direction."""
        found = self.explore(self.draw(0), range(len(self.argument.leaves)))
        for leaf, (slope, _) in found.items():
            self._slopes[leaf].append(slope)
        return {leaf: gauge for leaf, (_, gauge) in found.items()}

    def measure(self, leaves: Sequence[int], directions: int) -> None:
        """Measures leaves along further directions, until each has so many."""
        gauges = self.gauges  # the first direction
        for number in range(1, directions):
            some = [leaf for leaf in leaves if len(self._slopes[leaf]) == number]
            if not some:
                continue
            draws = self.draw(number)
            found = self.measure_spans(draws, [self.whole(leaf) for leaf in some], gauges)
            for i, leaf in enumerate(some):
                slope = Slopes(*(column[i : i + 1] for column in found))
                if slope.bar[0] > THRESHOLDS.worse_bar * self._slopes[leaf][0].bar[0]:
                    # The first direction's steps do not suit this one.
                    slope, _ = self.explore(draws, [leaf])[leaf]
                self._slopes[leaf].append(slope)

    def along(self, leaf: int, directions: int) -> Slopes:
        """Returns a leaf's slopes along the first directions, after `measure`."""
        parts = zip(*self._slopes[leaf][:directions], strict=True)
        return Slopes(*map(np.concatenate, parts))

    def tabulate(self, leaf: int) -> Slopes:
        """Returns the slopes along all coordinates of a small leaf, from steps of all sizes."""
        if leaf not in self._tabulated:
            spans = coordinates(leaf, range(self.leaves[leaf].size))
            steps = slopes.ladder(self.gauges[leaf].unit, self.narrowest)
            self._tabulated[leaf] = self.measure_spans(self.ones(), spans, self.gauges, steps)
        return self._tabulated[leaf]

    def table(self, leaf: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns central differences at all coordinates of a leaf, with one step.

        Faster than `tabulate`, but without a bound of the truncation: directions must confirm it.

        Returns:
          ``(size,)`` slopes, and ``(size,)`` bounds of their round-off.
        """
        if leaf not in self._tables:
            self._tables[leaf] = self._table(leaf)
        return self._tables[leaf]

    def explore(
        self, draws: Sequence[np.ndarray], leaves: Sequence[int]
    ) -> dict[int, tuple[Slopes, Gauge]]:
        """Measures the slope along a direction of each leaf, with steps of all sizes.

        Args:
          draws: for each leaf of the argument ``(size,)``.
          leaves: indices of those to measure.

        Returns:
          For each leaf its slope, and how to measure along other directions.
        """
        units = {leaf: scale(self.leaves[leaf]) for leaf in leaves}
        ladders = {leaf: slopes.ladder(units[leaf], self.narrowest) for leaf in leaves}
        spacing = self.narrowest**THRESHOLDS.noise_spacing
        spans, distances = [], []
        for leaf in leaves:
            steps = ladders[leaf]
            points = np.concatenate([steps, -steps, spacing * slopes.NOISE_POINTS])
            distances.append(units[leaf] * points)
            spans += [self.whole(leaf)] * len(points)
        values = self.values(draws, spans, np.concatenate(distances))
        ends = np.cumsum([len(each) for each in distances])[:-1]
        values_by_leaf = np.split(values, ends)
        if self.is_narrow:
            # Values on one tread of a staircase show no noise; those of another leaf may.
            seen = [
                slopes.noise(of_leaf[-len(slopes.NOISE_POINTS) :]) for of_leaf in values_by_leaf
            ]
            self.least_noise = max([self.least_noise, *(n for n in seen if np.isfinite(n))])
        return {
            leaf: self._explored(units[leaf], ladders[leaf], of_leaf, spacing)
            for leaf, of_leaf in zip(leaves, values_by_leaf, strict=True)
        }

    def _explored(
        self, unit: float, ladder: np.ndarray, values: np.ndarray, spacing: float
    ) -> tuple[Slopes, Gauge]:
        steps = ladder[None]
        parts = np.split(values, [steps.size, 2 * steps.size])
        above, below, near = (part[None] for part in parts)
        noise = np.maximum(slopes.noise(near[0]), slopes.scatter(steps, above, below))
        noise = np.maximum(noise, self.least_noise)
        slope = self._extrapolate(steps, above, below, noise)
        level = float(slope.round_off[0] * slope.step[0]) / THRESHOLDS.noise_factor
        hidden = slopes.is_contradicted(slope, near[0], spacing, self.epsilon)
        narrow, wide = THRESHOLDS.narrow_noise_of_change, THRESHOLDS.noise_of_change
        share = narrow if self.is_narrow else wide
        hidden |= slopes.is_all_noise(noise, above, below, self.epsilon, share)
        if hidden:
            infinite = np.full_like(slope.value, np.inf)
            slope, level = slope._replace(truncation=infinite, doubt=infinite), np.inf
        return _scaled(slope, unit), Gauge(unit, slope.step[0], ladder[-1], level)

    def measure_spans(
        self,
        draws: Sequence[np.ndarray],
        spans: Sequence[Span],
        gauges: dict[int, Gauge],
        steps: np.ndarray | None = None,
    ) -> Slopes:
        """Measures the slopes along spans of a direction, with steps that suit the leaf.

        Args:
          draws: for each leaf of the argument ``(size,)``.
          spans: where to measure.
          gauges: how to.
          steps: other steps, relative to the leaf's scale.
        """
        ladders = np.stack(
            [
                slopes.around(gauges[span.leaf].step, gauges[span.leaf].finest)
                if steps is None
                else steps
                for span in spans
            ]
        )
        units = np.array([gauges[span.leaf].unit for span in spans])
        count = ladders.shape[1]
        distances = units[:, None] * np.concatenate([ladders, -ladders], axis=1)
        rows = [span for span in spans for _ in range(2 * count)]
        values = self.values(draws, rows, distances.ravel()).reshape(len(spans), 2 * count)
        noise = np.array([[gauges[span.leaf].noise] for span in spans])
        above, below = values[:, :count], values[:, count:]
        return _scaled(self._extrapolate(ladders, above, below, noise), units)

    def _extrapolate(
        self, steps: np.ndarray, above: np.ndarray, below: np.ndarray, noise: np.ndarray
    ) -> Slopes:
        return slopes.extrapolate(
            steps, above, below, self.value, noise, self.epsilon, self.narrowest
        )

    def _table(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        leaf, gauge = self.leaves[index], self.gauges[index]
        size, here = leaf.size, np.asarray(leaf).ravel()
        step = self._step_of_coordinates(index, gauge) * gauge.unit
        ends = np.stack([here + step, here - step], axis=1).astype(here.dtype)
        try:
            values = self.values_near(index, ends)
        except Exception:  # a function that cannot be vectorised may raise anything
            rows = [span for span in coordinates(index, range(size)) for _ in range(2)]
            values = self.values(self.ones(), rows, np.tile([step, -step], size)).reshape(-1, 2)
        above, below = np.asarray(ends, np.float64).T
        round_off = THRESHOLDS.noise_factor * gauge.noise / (above - below)
        return slopes.quotient(values[:, 0], values[:, 1], above, below), round_off

    def _step_of_coordinates(self, index: int, gauge: Gauge) -> float:
        """Returns the step that measures a sample of single coordinates best."""
        size = self.leaves[index].size
        count = min(size, THRESHOLDS.step_sample)
        sample = np.random.default_rng(size).choice(size, count, replace=False)
        ladder = slopes.ladder(gauge.unit, self.narrowest)
        steps = np.tile(ladder, (count, 1))
        distances = gauge.unit * np.concatenate([ladder, -ladder])
        spans = [span for span in coordinates(index, sample) for _ in distances]
        values = self.values(self.ones(), spans, np.tile(distances, count))
        above, below = np.split(values.reshape(count, -1), 2, axis=1)
        best = self._extrapolate(steps, above, below, np.full((1, 1), gauge.noise))
        with np.errstate(invalid="ignore", over="ignore"):
            error = slopes.quotient(above, below, steps, -steps) - best.value[:, None]
            total = np.sum(error**2, axis=0) + count * (gauge.noise / ladder) ** 2
        return float(ladder[np.argmin(np.where(np.isfinite(total), total, np.inf))])


def remember_last(compiled: Compiled) -> Callable[..., Measurement]:
    """Returns ``at(argument, args, seed)``: a `Measurement`, kept until the arguments change.

    It is kept while the arrays are the same objects and JAX's, which cannot change in place.

    Example:
      >>> from jaxnet.gradcheck import arguments, point
      >>> x = jnp.ones(3)
      >>> argument = arguments.examine(jnp.sum, (x,), 0)
      >>> at = remember_last(point.Compiled(jnp.sum, 0))
      >>> at(argument, (x,), (0,)) is at(argument, (x,), (0,))
      True
    """
    key: Any = None
    last: Measurement | None = None

    def at(argument: Argument, args: tuple[Any, ...], seed: tuple[int, ...]) -> Measurement:
        nonlocal key, last
        leaves, structure = jax.tree.flatten(args)
        # The measurement holds these arrays, so that their ids stay theirs.
        new = (structure, tuple(map(id, leaves)), seed, jnp.result_type(float))
        if last is None or new != key or not all(isinstance(leaf, jax.Array) for leaf in leaves):
            last, key = Measurement(compiled, argument, args, seed), new
        return last

    return at


def _scaled(found: Slopes, unit: Any) -> Slopes:
    return Slopes(
        found.value / unit,
        found.truncation / unit,
        found.round_off / unit,
        found.doubt / unit,
        found.step,
        found.jump / unit,
    )
