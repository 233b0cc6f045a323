"""Random numbers in the distributions that the families of functions need."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

__all__ = ["Draw", "Drawn"]

_Option = TypeVar("_Option")

# What was drawn, in words; a scalar function; its arguments, NumPy arrays (floats are float32).
Drawn = tuple[str, Callable[..., jax.Array], tuple[Any, ...]]


class Draw:
    """Draws from NumPy's generator of a seed.

    Attributes:
      rng: the generator.
    """

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)

    def choose(self, options: tuple[_Option, ...]) -> _Option:
        """Returns one of the options."""
        return options[self.rng.integers(len(options))]

    def coin(self, probability: float = 0.5) -> bool:
        """Returns True with a probability."""
        return bool(self.rng.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """Returns an integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def log_integer(self, low: int, high: int) -> int:
        """Returns an integer from low to high whose logarithm is uniform."""
        return min(high, int(math.exp(self.rng.uniform(math.log(low), math.log(high + 1)))))

    def log_uniform(self, low: float, high: float) -> float:
        """Returns a number whose logarithm is uniform, and which float32 holds."""
        return float(np.float32(math.exp(self.rng.uniform(math.log(low), math.log(high)))))

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Returns a float32 array, normal with mean 0 and a standard deviation."""
        return np.asarray(scale * self.rng.standard_normal(shape), np.float32)

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Returns a float32 array, uniform from low to high."""
        return np.asarray(self.rng.uniform(low, high, shape), np.float32)

    def indices(self, bound: int, *shape: int) -> np.ndarray:
        """Returns an int32 array of indices below a bound."""
        return np.asarray(self.rng.integers(bound, size=shape), np.int32)

    def shape(self) -> tuple[int, ...]:
        """Returns the shape of an array with up to three axes."""
        return tuple(self.log_integer(1, 30) for _ in range(self.integer(0, 3)))
