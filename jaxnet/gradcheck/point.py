"""The function under audit at a point: its value, its gradient, and its values around it."""

import concurrent.futures
import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import text
from jaxnet.gradcheck import changes, precision
from jaxnet.gradcheck.arguments import Argument, Span
from jaxnet.gradcheck.precision import Rounding
from jaxnet.gradcheck.thresholds import THRESHOLDS

__all__ = ["Compiled", "Evaluation", "Point", "scale", "to_float64"]


class Evaluation(NamedTuple):
    """A function's value, and its gradient or why there is none.

    Attributes:
      value: a scalar.
      gradient: by `jax.grad`; None if that raised.
      error: what it raised, or None.
    """

    value: jax.Array
    gradient: Any
    error: Exception | None


class Compiled:
    """What is compiled of a function of arrays; keep it from audit to audit.

    Attributes:
      values: compiled; see `_make_values`.
      values_near: from an argument, a function as of `changes.make_evaluator`: values with single
        coordinates changed.

    Example:
      >>> found = Compiled(lambda x: x**2, 0).evaluate((jnp.asarray(3.0),))
      >>> float(found.value), float(found.gradient)
      (9.0, 6.0)
    """

    def __init__(self, f: Callable[..., Any], argnums: int | tuple[int, ...]):
        """Wraps ``f`` in new functions, so that JAX's caches hold nothing of it yet."""
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

    def evaluate(self, args: tuple[Any, ...]) -> Evaluation:
        """Returns the value, and the gradient of `jax.grad` if there is one."""
        try:
            value, gradient = self._value_and_gradient(args)
            return Evaluation(value, gradient, None)
        except Exception as error:  # a function without a derivative may raise anything
            return Evaluation(self._value(args), None, error)

    def rounding(self, args: tuple[Any, ...]) -> Rounding:
        """Returns how the function rounds what depends on the differentiated arguments."""
        positions = set(self._positions(args))
        jaxpr = self._value.trace(args).jaxpr
        return precision.examine(jaxpr, [i in positions for i in range(len(jaxpr.jaxpr.invars))])

    def is_used(self, args: tuple[Any, ...], leaf: int) -> bool:
        """Returns whether the value may depend on a leaf of the differentiated arguments."""
        return precision.is_reached(self._value.trace(args).jaxpr, self._positions(args)[leaf])

    def _positions(self, args: tuple[Any, ...]) -> list[int]:
        """Returns the positions of the differentiated leaves among all leaves."""
        counts = [len(jax.tree.leaves(arg)) for arg in args]
        starts = [sum(counts[:number]) for number in range(len(args))]
        return [starts[n] + i for n in self._numbers for i in range(counts[n])]


class Point:
    """A function at a point, and its values around it; in float64 if the function allows it.

    Attributes:
      argument: the structure of the differentiated arguments.
      args: the point.
      seed: draws the directions.
      own: value and gradient in the arguments' own dtype.
      precise: whether the differences are in float64; otherwise ``note`` says why not.
      note: a remark on the dtype of the differences, or empty.
      value: of the function, in the dtype of the differences.
      leaves: the differentiated arrays, real, in the dtype of the differences.
      epsilon: relative spacing of the value's dtype.
      narrowest: relative spacing of the narrowest dtype on the way to the value.
      least_noise: standard deviation of a value's round-off, at least.
      gradient: of `jax.grad` in the dtype of the differences, for each leaf ``(size,)``; None if
        there is none, or if it is not finite.
      is_deterministic: whether three calls gave the same value.
      is_narrow: whether the arguments pass through less than float64.
      is_stepped: whether they are rounded to integers on the way.
      is_unstable: whether the value in float64 is another, so that rounding decides it.
    """

    def __init__(
        self, compiled: Compiled, argument: Argument, args: tuple[Any, ...], seed: tuple[int, ...]
    ):
        """Evaluates the function and chooses the dtype of the differences.

        Args:
          compiled: the function.
          argument: the structure of its differentiated arguments.
          args: the point.
          seed: draws the directions.

        Raises:
          ValueError: the value at the point is not finite.
        """
        self._compiled, self.argument, self.args, self.seed = compiled, argument, args, seed
        self.own = compiled.evaluate(args)
        value = float(self.own.value)
        if not np.isfinite(value):
            raise ValueError(f"f must be finite where its gradient is checked, got {value}")
        self.is_deterministic = all(float(compiled.evaluate(args).value) == value for _ in range(2))
        self.is_unstable = False
        found, self.note = self._in_float64(value)
        self.precise = found is not None
        with self.precision():
            if found is None:
                found = self.own
            else:
                args = jax.tree.map(to_float64, args)
            self.leaves, self._rest = argument.split(args)
            rounding = compiled.rounding(args)
        self.value, self.is_stepped = float(found.value), rounding.is_stepped
        self.epsilon = float(jnp.finfo(found.value.dtype).eps)
        self.narrowest, self.least_noise = rounding.epsilon, rounding.tiny
        self.is_narrow = rounding.narrowest != "float64"
        if self.precise and self.is_narrow:
            self.note = f"f computes in {rounding.narrowest} whatever it is given: wider error bars"
        if not self.is_deterministic:
            self.note = "f is not deterministic: two calls with the same arguments differ"
        self.gradient = (
            None if found.gradient is None else argument.flatten_gradient(found.gradient)
        )
        if self.gradient and not all(np.isfinite(leaf).all() for leaf in self.gradient):
            self.gradient = None

    def _in_float64(self, own: float) -> tuple[Evaluation | None, str]:
        """Returns the function in float64, or None and the reason why it cannot be measured so."""
        try:
            with jax.enable_x64(True):
                wide_args = jax.tree.map(to_float64, self.args)
                found = self._compiled.evaluate(wide_args)
                draws = self._compiled.rounding(wide_args).draws
        except Exception as error:  # a function may raise anything for another dtype
            reason = _shorten(text.first_line(error))
            return None, f"f does not take float64 ({reason}): measured in its own dtype"
        if draws != self._compiled.rounding(self.args).draws:
            return None, "f draws other random numbers in float64: measured in its own dtype"
        wide = float(found.value)
        epsilon = max(float(jnp.finfo(leaf.dtype).eps) for leaf in self.argument.leaves)
        allowed = THRESHOLDS.same_value * np.sqrt(epsilon) * max(abs(wide), abs(own))
        if not abs(wide - own) <= allowed:
            self.is_unstable = True
            return None, (
                f"f is {own:g}, and {wide:g} in float64 (it overflows, underflows or magnifies "
                f"rounding): measured in its own dtype"
            )
        return found, ""

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """Sets the dtype of the differences as JAX's widest, and lets values be NaN."""
        # A wide step may leave the function's domain; that is no reason to stop.
        with (
            jax.enable_x64(True) if self.precise else contextlib.nullcontext(),
            jax.debug_nans(False),
            jax.debug_infs(False),
        ):
            yield

    def is_used(self, leaf: int) -> bool:
        """Returns whether the value may depend on a leaf, according to the jaxpr."""
        with self.precision():
            return self._compiled.is_used(self.argument.join(self.leaves, self._rest), leaf)

    def gradient_nearby(self) -> list[np.ndarray] | None:
        """Returns `gradient` at a point where the last half of all digits has changed.

        A real gradient changes little; one that is only rounding noise changes completely.
        """
        share = np.sqrt(np.finfo(np.float64).eps)
        with self.precision():
            moved = [
                leaf + share * scale(leaf) * draw.reshape(leaf.shape).astype(leaf.dtype)
                for leaf, draw in zip(self.leaves, self._draw((0,)), strict=True)
            ]
            found = self._compiled.evaluate(self.argument.join(moved, self._rest)).gradient
        return None if found is None else self.argument.flatten_gradient(found)

    def draw(self, number: int) -> list[np.ndarray]:
        """Returns a random direction: for each leaf ``(size,)`` standard normal numbers."""
        return self._draw((*self.seed, number))

    def _draw(self, seed: Sequence[int]) -> list[np.ndarray]:
        generator = np.random.default_rng(seed)
        return [
            generator.standard_normal(leaf.size).astype(leaf.dtype).astype(np.float64)
            for leaf in self.leaves
        ]

    def ones(self) -> list[np.ndarray]:
        """Returns the direction that is 1 in every coordinate."""
        return [np.ones(leaf.size) for leaf in self.leaves]

    def whole(self, leaf: int) -> Span:
        """Returns the span of all coordinates of a leaf."""
        return Span(leaf, 0, self.argument.leaves[leaf].size)

    def values(
        self, draws: Sequence[np.ndarray], spans: Sequence[Span], distances: np.ndarray
    ) -> np.ndarray:
        """Returns the function's values at points around the point.

        Args:
          draws: a direction: for each leaf ``(size,)``.
          spans: ``(k)`` of them: where in its leaf each point differs.
          distances: ``(k,)`` how far each point moves along the direction.

        Returns:
          ``(k,)`` float64.
        """
        block = THRESHOLDS.block_rows
        with self.precision():
            arrays = [
                jnp.asarray(draw.reshape(leaf.shape), leaf.dtype)
                for draw, leaf in zip(draws, self.leaves, strict=True)
            ]
            columns = [*np.array(spans, np.int32).T]
            columns.append(distances.astype(np.float64 if self.precise else np.float32))
            results = []
            for first in range(0, len(distances), block):
                count = min(block, len(distances) - first)
                rows = [np.pad(c[first : first + count], (0, block - count)) for c in columns]
                found = self._compiled.values(
                    self.argument, self.leaves, self._rest, arrays, rows, count
                )
                results.append(np.asarray(found)[:count])
        return np.concatenate(results).astype(np.float64)

    def values_near(self, index: int, ends: np.ndarray) -> np.ndarray:
        """Returns the values with each coordinate of a leaf changed, using all processors."""
        evaluate = self._compiled.values_near(self.argument)
        processors = (os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
        count = -(-len(ends) // processors)
        # Of one length, so that it compiles once.
        parts = np.minimum(np.arange(processors * count), len(ends) - 1).reshape(processors, count)

        def values_of(part):
            with self.precision():  # JAX's configuration is a thread's own
                found = evaluate((self.leaves, self._rest), index, part, ends[part])
                return np.asarray(found, np.float64)

        first = values_of(parts[0])  # compiles
        with concurrent.futures.ThreadPoolExecutor(processors) as pool:
            others = pool.map(values_of, parts[1:])
            return np.concatenate([first, *others])[: len(ends)]


def to_float64(leaf: Any) -> Any:
    """Returns a floating-point leaf in float64, a complex one in complex128, any other as it is.

    Example:
      >>> to_float64(np.float32(0.5)).dtype, to_float64(3)
      (dtype('float64'), 3)
    """
    dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.asarray(leaf, np.complex128)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(leaf, np.float64)
    return leaf


def scale(leaf: jax.Array) -> float:
    """Returns a leaf's root mean square, or 1 if that is 0.

    Example:
      >>> scale(jnp.array([3.0, 3.0])), scale(jnp.zeros(2))
      (3.0, 1.0)
    """
    array = np.asarray(leaf, np.float64)
    largest = float(np.max(np.abs(array)))
    return largest * float(np.sqrt(np.mean((array / largest) ** 2))) if largest else 1.0


def _make_values(value: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``values(argument, leaves, rest, draws, rows, count)``.

    Each of the first ``count`` rows is a span (leaf, start, stop) and a distance: its value is that
    of the function with the leaf moved by the distance along the draw, within the span.
    """

    def values(argument, leaves, rest, draws, rows, count):
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
        # One at a time: the memory of one evaluation, and f need not be vectorisable.
        return jax.lax.fori_loop(0, count, at, results)

    return values


def _shorten(reason: str) -> str:
    length = THRESHOLDS.longest_reason
    return reason if len(reason) <= length else reason[: length - 3] + "..."
