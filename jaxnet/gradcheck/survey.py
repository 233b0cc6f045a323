"""What was measured of a function at a point: slopes along directions of every leaf."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradcheck.arguments import Argument
from jaxnet.gradcheck.reference import Gauge, Programs, Reference, Span
from jaxnet.gradcheck.slopes import Slopes


class Survey:
    """Measures on demand and remembers, so that many gradients may be compared with it.

    Attributes:
      argument: how the argument comes apart.
      args: the point.
      own: the function there, in its arguments' own dtype.
      reference: the function near the point.
      seed: draws the directions.
      gauges: how to measure along each leaf.
    """

    def __init__(
        self, programs: Programs, argument: Argument, args: tuple[Any, ...], seed: tuple[int, ...]
    ):
        """Evaluates the function, and finds for every leaf the steps that suit it."""
        self.argument, self.args, self.seed = argument, args, seed
        self.own = programs.evaluate(args)
        self.reference = Reference(programs, argument, args, self.own)
        self._slopes: list[list[Slopes]] = [[] for _ in argument.leaves]
        self._tabulated: dict[int, Slopes] = {}
        self._tables: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.gauges: dict[int, Gauge] = {}
        found = self.reference.explore(self.draw(0), range(len(argument.leaves)))
        for leaf, (slope, gauge) in found.items():
            self.gauges[leaf] = gauge
            self._slopes[leaf].append(slope)

    def draw(self, number: int) -> list[np.ndarray]:
        """Returns a direction in every leaf: independent standard normal numbers."""
        return self.reference.draw((*self.seed, number))

    def whole(self, leaf: int) -> Span:
        """Returns all coordinates of a leaf."""
        return Span(leaf, 0, self.argument.leaves[leaf].size)

    def measure(self, leaves: Sequence[int], directions: int) -> None:
        """Brings leaves to so many directions."""
        for number in range(1, directions):
            some = [leaf for leaf in leaves if len(self._slopes[leaf]) == number]
            if some:
                self._measure_along(some, number)

    def _measure_along(self, leaves: Sequence[int], number: int) -> None:
        draws = self.draw(number)
        found = self.reference.measure(draws, [self.whole(leaf) for leaf in leaves], self.gauges)
        for i, leaf in enumerate(leaves):
            slope = Slopes(*(column[i : i + 1] for column in found))
            if slope.bar[0] > 100 * self._slopes[leaf][0].bar[0]:
                # Not like the first direction: these steps do not suit it.
                slope, _ = self.reference.explore(draws, [leaf])[leaf]
            self._slopes[leaf].append(slope)

    def along(self, leaf: int, directions: int) -> Slopes:
        """Returns the slopes of a leaf along the first directions, measured before."""
        parts = zip(*self._slopes[leaf][:directions], strict=True)
        return Slopes(*map(np.concatenate, parts))

    def tabulate(self, leaf: int) -> Slopes:
        """Returns the slopes along all coordinates of a leaf."""
        if leaf not in self._tabulated:
            self._tabulated[leaf] = self.reference.tabulate(leaf, self.gauges[leaf])
        return self._tabulated[leaf]

    def table(self, leaf: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns estimates of all coordinates of a leaf, and their round-off."""
        if leaf not in self._tables:
            self._tables[leaf] = self.reference.table(leaf, self.gauges[leaf])
        return self._tables[leaf]


class LastSurvey:
    """Keeps the survey of the last point, as long as nobody can have changed that point."""

    def __init__(self, programs: Programs):
        """Begins with none."""
        self._programs = programs
        self._key: Any = None
        self._survey: Survey | None = None

    def at(self, argument: Argument, args: tuple[Any, ...], seed: tuple[int, ...]) -> Survey:
        """Returns the survey of a point, the last one if it is of the same arrays."""
        leaves, structure = jax.tree.flatten(args)
        # Arrays of JAX do not change, and those of the survey live as long as it does.
        key = (structure, tuple(map(id, leaves)), seed, jnp.result_type(float))
        immutable = all(isinstance(leaf, jax.Array) for leaf in leaves)
        if self._survey is None or not immutable or key != self._key:
            self._survey, self._key = Survey(self._programs, argument, args, seed), key
        return self._survey
