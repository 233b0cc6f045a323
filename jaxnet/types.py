"""The pytree of parameters, and what other modules call by its type."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

__all__ = ["Devices", "Layer", "Params", "ValueAndGrad"]


class Layer(NamedTuple):
    """A fully connected layer, ``sigmoid(inputs @ weight + bias)``.

    Attributes:
      weight: ``(inputs, outputs)`` floating-point array.
      bias: ``(outputs,)`` array of the same dtype, or None (the lecture's program has no biases).
    """

    weight: Any
    bias: Any = None


Params = tuple[Layer, ...]

# Of a loss that is a mean over the batch: `(params, inputs, targets) -> (loss, gradient)`.
ValueAndGrad = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, Params]]

Devices = Sequence[jax.Device]
