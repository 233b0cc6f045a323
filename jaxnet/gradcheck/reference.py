"""The function near a point: what its values alone say of its slopes."""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradcheck import changes, precision, slopes
from jaxnet.gradcheck.arguments import Argument
from jaxnet.gradcheck.precision import Traits
from jaxnet.gradcheck.slopes import Slopes

_SAMPLE = 2  # coordinates that choose the step for all of a leaf
_ROWS = 256  # points that one call of the compiled program evaluates, at most

# A function that says something else in float64 than in the dtype of its arguments, by more than
# rounding should explain, is another one there.
_SAME_VALUE = 8.0  # times the square root of the dtype's spacing


class Span(NamedTuple):
    """Consecutive real coordinates of a leaf, from ``start`` to before ``stop``."""

    leaf: int
    start: int
    stop: int


class Gauge(NamedTuple):
    """What is known of the function along one leaf.

    Attributes:
      unit: the leaf's scale, in which steps are measured.
      step: that measures best, relative to the scale.
      finest: step that makes sense.
      noise: standard deviation of the round-off in a value.
    """

    unit: float
    step: float
    finest: float
    noise: float


class Programs:
    """What is compiled of a function; kept from audit to audit."""

    def __init__(self, f: Callable[..., Any], argnums: int | tuple[int, ...]):
        """Wraps ``f`` anew, so that nothing compiled of it before is mistaken for it."""
        self._value = jax.jit(lambda args: f(*args))
        self._value_and_gradient = jax.jit(lambda args: jax.value_and_grad(f, argnums)(*args))
        self._numbers = (argnums,) if isinstance(argnums, int) else argnums

        def value_of_leaves(argument, leaves, rest):
            return f(*argument.join(leaves, rest))

        self.values = jax.jit(_make_values(value_of_leaves), static_argnums=0)

        @functools.cache
        def values_near(argument):
            return changes.make_evaluator(functools.partial(value_of_leaves, argument), 0)

        self.values_near = values_near

    def traits(self, args: tuple[Any, ...]) -> Traits:
        """Returns what becomes of the differentiated arguments on their way through the program."""
        places = set(self._places(args))
        program = self._value.trace(args).jaxpr
        return precision.examine(program, [i in places for i in range(len(program.jaxpr.invars))])

    def is_used(self, args: tuple[Any, ...], leaf: int) -> bool:
        """Returns whether the value may depend on a leaf of the differentiated arguments."""
        return precision.is_reached(self._value.trace(args).jaxpr, self._places(args)[leaf])

    def _places(self, args: tuple[Any, ...]) -> list[int]:
        """Returns where the differentiated leaves are among all."""
        counts = [len(jax.tree.leaves(arg)) for arg in args]
        starts = [sum(counts[:number]) for number in range(len(args))]
        return [starts[n] + i for n in self._numbers for i in range(counts[n])]

    def evaluate(self, args: tuple[Any, ...]) -> "Evaluation":
        """Returns the value, and the gradient of `jax.grad` if there is one."""
        try:
            value, gradient = self._value_and_gradient(args)
            return Evaluation(value, gradient, None)
        except Exception as error:  # without a derivative, a function may raise anything
            return Evaluation(self._value(args), None, error)


class Evaluation(NamedTuple):
    """A value, and the gradient or why there is none."""

    value: jax.Array
    gradient: Any
    error: Exception | None


def _make_values(value: Callable[..., Any]) -> Callable[..., Any]:
    def values(argument, leaves, rest, draws, rows, count):
        """Returns the value at each row's point: its leaf moved along the draws in its span."""

        def at(row, results):
            index, start, stop, distance = (column[row] for column in rows)
            moved = []
            for number, (leaf, draw) in enumerate(zip(leaves, draws, strict=True)):
                along = jnp.arange(leaf.size, dtype=np.int32).reshape(leaf.shape)
                inside = (index == number) & (start <= along) & (along < stop)
                step = jnp.where(inside, distance.astype(leaf.dtype), jnp.zeros((), leaf.dtype))
                moved.append(leaf + step * draw)
            result = value(argument, moved, rest)
            return results.at[row].set(result.astype(results.dtype))

        results = jnp.zeros(len(rows[0]), rows[-1].dtype)
        # One at a time: memory stays that of one evaluation, and f need not be vectorisable.
        return jax.lax.fori_loop(0, count, at, results)

    return values


class Reference:
    """Measures slopes of a function at a point, in float64 if the function allows it.

    Attributes:
      precise: whether arguments are float64; else of their own dtype, and ``note`` says why.
      note: what is to be said of the precision, or empty.
      value: of the function, as measured here.
      epsilon: relative spacing of the value's dtype.
      is_narrow: whether arguments pass through less than float64 on their way to the value.
      is_unstable: whether rounding in the arguments' dtype changes the value itself.
      is_stepped: whether they are rounded to integers on that way.
      gradient: of `jax.grad` in this precision, flat; None if there is none, or not finite.
    """

    def __init__(
        self, programs: Programs, argument: Argument, args: tuple[Any, ...], own: Evaluation
    ):
        """Chooses the precision.

        Args:
          programs: of the function.
          argument: how it comes apart.
          args: the point.
          own: the function there, in its arguments' own dtype.

        Raises:
          ValueError: the value at the point is not finite.
        """
        self._programs, self._argument = programs, argument
        value = float(own.value)
        if not np.isfinite(value):
            raise ValueError(f"f must be finite where its gradient is checked, got {value}")
        self.is_deterministic = all(float(programs.evaluate(args).value) == value for _ in range(2))
        self.is_unstable = False
        found, self.note = self._in_float64(args, value)
        self.precise = not self.note
        with self.precision():
            if self.precise:
                args = jax.tree.map(to_float64, args)
            else:
                found = own
            self._leaves, self._rest = argument.split(args)
            traits = programs.traits(args)
        self.value, self.is_stepped = float(found.value), traits.is_stepped
        self.epsilon = float(jnp.finfo(found.value.dtype).eps)
        self._narrowest, self._floor = traits.epsilon, traits.tiny
        self.is_narrow = traits.narrowest != "float64"
        if self.precise and self.is_narrow:
            self.note = f"f computes in {traits.narrowest} whatever it is given: wider error bars"
        if not self.is_deterministic:
            self.note = "f is not deterministic: two calls with the same arguments differ"
        self.gradient = (
            None if found.gradient is None else argument.flatten_gradient(found.gradient)
        )
        if self.gradient and not all(np.isfinite(leaf).all() for leaf in self.gradient):
            self.gradient = None

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """Sets what this reference computes in."""
        # A wide step may well leave the function's domain, and that is no reason to stop.
        with (
            jax.enable_x64(True) if self.precise else contextlib.nullcontext(),
            jax.debug_nans(False),
            jax.debug_infs(False),
        ):
            yield

    def _in_float64(self, args: tuple[Any, ...], own: float) -> tuple[Any, str]:
        """Returns the function in float64; or, in its place, why it cannot be had."""
        try:
            with jax.enable_x64(True):
                wide_args = jax.tree.map(to_float64, args)
                found = self._programs.evaluate(wide_args)
                draws = self._programs.traits(wide_args).draws
        except Exception as error:  # whatever a function makes of another dtype
            reason = _shorten(first_line(error))
            return None, f"f does not take float64 ({reason}): measured in its own dtype"
        if draws != self._programs.traits(args).draws:
            return None, "f draws other random numbers in float64: measured in its own dtype"
        wide = float(found.value)
        epsilon = max(float(jnp.finfo(leaf.dtype).eps) for leaf in self._argument.leaves)
        if not abs(wide - own) <= _SAME_VALUE * np.sqrt(epsilon) * max(abs(wide), abs(own)):
            self.is_unstable = True
            return None, (
                f"f is {own:g}, and {wide:g} in float64 (it overflows, underflows or magnifies "
                f"rounding): measured in its own dtype"
            )
        return found, ""

    def is_used(self, leaf: int) -> bool:
        """Returns whether the value may depend on a leaf, by the program."""
        with self.precision():
            return self._programs.is_used(self._argument.join(self._leaves, self._rest), leaf)

    def gradient_nearby(self) -> list[np.ndarray] | None:
        """Returns `gradient` where all leaves are changed in the last half of their digits.

        A gradient hardly differs there, and what is but rounding is another.
        """
        share = np.sqrt(np.finfo(np.float64).eps)
        with self.precision():
            moved = [
                leaf + share * _scale(leaf) * draw.reshape(leaf.shape).astype(leaf.dtype)
                for leaf, draw in zip(self._leaves, self.draw((0,)), strict=True)
            ]
            found = self._programs.evaluate(self._argument.join(moved, self._rest)).gradient
        return None if found is None else self._argument.flatten_gradient(found)

    def draw(self, seed: Sequence[int]) -> list[np.ndarray]:
        """Returns normally distributed directions in every leaf, as this precision holds them."""
        generator = np.random.default_rng(seed)
        return [
            generator.standard_normal(leaf.size).astype(leaf.dtype).astype(np.float64)
            for leaf in self._leaves
        ]

    def explore(
        self, draws: Sequence[np.ndarray], leaves: Sequence[int]
    ) -> dict[int, tuple[Slopes, Gauge]]:
        """Measures the slope along each leaf's draw with steps of all sizes.

        Returns:
          For each leaf a slope, and with what to measure others.
        """
        units = {leaf: _scale(self._leaves[leaf]) for leaf in leaves}
        ladders = {leaf: slopes.ladder(units[leaf], self._narrowest) for leaf in leaves}
        spacing = self._narrowest**0.6  # wide enough for values to be rounded independently
        spans, distances = [], []
        for leaf in leaves:
            steps = ladders[leaf]
            points = np.concatenate([steps, -steps, spacing * slopes.NOISE_POINTS])
            distances.append(units[leaf] * points)
            spans += [Span(leaf, 0, self._leaves[leaf].size)] * len(points)
        values = self.values(draws, spans, np.concatenate(distances))
        found = {}
        ends = np.cumsum([len(each) for each in distances])[:-1]
        values_by_leaf = np.split(values, ends)
        if self.is_narrow:
            # Values that all lie on one tread betray no noise; others then do.
            seen = [
                slopes.noise(of_leaf[-len(slopes.NOISE_POINTS) :]) for of_leaf in values_by_leaf
            ]
            self._floor = max(self._floor, *(each for each in seen if np.isfinite(each)))
        for leaf, of_leaf in zip(leaves, values_by_leaf, strict=True):
            steps = ladders[leaf][None]
            parts = np.split(of_leaf, [steps.size, 2 * steps.size])
            above, below, near = (part[None] for part in parts)
            noise = np.maximum(slopes.noise(near[0]), slopes.scatter(steps, above, below))
            noise = np.maximum(noise, self._floor)
            slope = slopes.extrapolate(
                steps, above, below, self.value, noise, self.epsilon, self._narrowest
            )
            level = float(slope.round_off[0] * slope.step[0]) / 3
            hidden = slopes.is_contradicted(slope, near[0], spacing, self.epsilon)
            share = 0.5 if self.is_narrow else 0.05  # where noise is to be expected, it may be more
            hidden |= slopes.is_all_noise(noise, above, below, self.epsilon, share)
            if hidden:
                slope, level = _unknown(slope), np.inf
            found[leaf] = (
                _scaled(slope, units[leaf]),
                Gauge(units[leaf], slope.step[0], ladders[leaf][-1], level),
            )
        return found

    def measure(
        self,
        draws: Sequence[np.ndarray],
        spans: Sequence[Span],
        gauges: dict[int, Gauge],
        steps: np.ndarray | None = None,
    ) -> Slopes:
        """Measures the slopes along spans of the draws, with steps that are known to be good."""
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
        found = slopes.extrapolate(
            ladders, above, below, self.value, noise, self.epsilon, self._narrowest
        )
        return _scaled(found, units)

    def leaf(self, index: int) -> jax.Array:
        """Returns a leaf as it is at the point, real."""
        return self._leaves[index]

    def tabulate(self, index: int, gauge: Gauge) -> Slopes:
        """Measures the slopes along all coordinates of a small leaf, with steps of all sizes."""
        spans = coordinates(index, range(self._leaves[index].size))
        steps = slopes.ladder(gauge.unit, self._narrowest)
        return self.measure(self.ones(), spans, {index: gauge}, steps)

    def table(self, index: int, gauge: Gauge) -> tuple[np.ndarray, np.ndarray]:
        """Estimates all coordinates of a leaf by plain central differences, with one step.

        Faster than `tabulate`, and without a bar for the truncation: directions must confirm it.

        Returns:
          ``(size,)`` estimates, and by how much round-off may have shifted each.
        """
        leaf = self._leaves[index]
        size, here = leaf.size, np.asarray(leaf).ravel()
        step = self._step_of_coordinates(index, gauge) * gauge.unit
        ends = np.stack([here + step, here - step], axis=1).astype(here.dtype)
        try:
            values = self._values_near(index, ends)
        except Exception:  # what cannot be vectorised may raise anything
            rows = [span for span in coordinates(index, range(size)) for _ in range(2)]
            values = self.values(self.ones(), rows, np.tile([step, -step], size)).reshape(-1, 2)
        above, below = np.asarray(ends, np.float64).T
        return (values[:, 0] - values[:, 1]) / (above - below), 3 * gauge.noise / (above - below)

    def _step_of_coordinates(self, index: int, gauge: Gauge) -> float:
        """Returns the step with which a sample of single coordinates is measured best."""
        size = self._leaves[index].size
        sample = np.random.default_rng(size).choice(size, min(size, _SAMPLE), replace=False)
        ladder = slopes.ladder(gauge.unit, self._narrowest)
        steps = np.tile(ladder, (len(sample), 1))
        distances = gauge.unit * np.concatenate([ladder, -ladder])
        spans = [span for span in coordinates(index, sample) for _ in distances]
        values = self.values(self.ones(), spans, np.tile(distances, len(sample)))
        above, below = np.split(values.reshape(len(sample), -1), 2, axis=1)
        noise = np.full((1, 1), gauge.noise)
        best = slopes.extrapolate(
            steps, above, below, self.value, noise, self.epsilon, self._narrowest
        )
        with np.errstate(invalid="ignore", over="ignore"):
            error = (above - below) / (2 * steps) - best.value[:, None]
            total = np.sum(error**2, axis=0) + len(sample) * (gauge.noise / ladder) ** 2
        return float(ladder[np.argmin(np.where(np.isfinite(total), total, np.inf))])

    def _values_near(self, index: int, ends: np.ndarray) -> np.ndarray:
        """Returns the values with single coordinates moved, all of a leaf's, on all processors."""
        evaluate = self._programs.values_near(self._argument)
        processors = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
        count = -(-len(ends) // processors)
        # Of one length, so that they are compiled once.
        parts = np.minimum(np.arange(processors * count), len(ends) - 1).reshape(processors, count)

        def values_of(part):
            with self.precision():  # a thread has a configuration of its own
                found = evaluate((self._leaves, self._rest), index, part, ends[part])
                return np.asarray(found, np.float64)

        first = values_of(parts[0])  # compiles
        with concurrent.futures.ThreadPoolExecutor(processors) as pool:
            others = pool.map(values_of, parts[1:])
            return np.concatenate([first, *others])[: len(ends)]

    def ones(self) -> list[np.ndarray]:
        """Returns the direction that is 1 in every coordinate."""
        return [np.ones(leaf.size) for leaf in self._leaves]

    def values(
        self, draws: Sequence[np.ndarray], spans: Sequence[Span], distances: np.ndarray
    ) -> np.ndarray:
        """Returns the function's values where leaves are moved along spans of the draws."""
        with self.precision():
            arrays = [
                jnp.asarray(draw.reshape(leaf.shape), leaf.dtype)
                for draw, leaf in zip(draws, self._leaves, strict=True)
            ]
            numbers = np.array(spans, np.int32)
            wide = np.float64 if self.precise else np.float32
            results = []
            for first in range(0, len(distances), _ROWS):
                count = min(_ROWS, len(distances) - first)
                columns = [_padded(c) for c in numbers[first : first + count].T]
                columns.append(_padded(distances[first : first + count].astype(wide)))
                results.append(
                    np.asarray(
                        self._programs.values(
                            self._argument, self._leaves, self._rest, arrays, columns, count
                        )
                    )[:count]
                )
        return np.concatenate(results).astype(np.float64)


def coordinates(leaf: int, places: Iterable[int]) -> list[Span]:
    """Returns the spans of single coordinates."""
    return [Span(leaf, int(place), int(place) + 1) for place in places]


def to_float64(leaf: Any) -> Any:
    """Returns a leaf in double precision if it is floating-point or complex, else as it is."""
    dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.asarray(leaf, np.complex128)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(leaf, np.float64)
    return leaf


def _unknown(found: Slopes) -> Slopes:
    infinite = np.full_like(found.value, np.inf)
    return found._replace(truncation=infinite, doubt=infinite)


def _scaled(found: Slopes, unit: Any) -> Slopes:
    return Slopes(
        found.value / unit,
        found.truncation / unit,
        found.round_off / unit,
        found.doubt / unit,
        found.step,
        found.jump / unit,
    )


def _scale(leaf: jax.Array) -> float:
    array = np.asarray(leaf, np.float64)
    largest = float(np.max(np.abs(array)))
    return largest * float(np.sqrt(np.mean((array / largest) ** 2))) if largest else 1.0


def _padded(column: np.ndarray) -> np.ndarray:
    return np.pad(column, (0, _ROWS - len(column)))


def _shorten(text: str, length: int = 120) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def first_line(error: Exception) -> str:
    """Returns what an exception says first."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
