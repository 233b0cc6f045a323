"""Images kept as uint8, a quarter of the memory of float32, and scaled where they are read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnet.types import Params, ValueAndGrad

__all__ = ["as_float", "as_floats", "from_uint8"]


def as_float(inputs: jax.Array | np.ndarray, dtype: DTypeLike) -> jax.Array:
    """Returns uint8 inputs as floats in [0, 1]; inputs of another dtype unchanged.

    Args:
      inputs: ``(n, pixels)``, uint8, or of ``dtype`` already.
      dtype: of the parameters.

    Example:
      >>> as_float(np.array([[0, 255]], np.uint8), "float32").tolist()
      [[0.0, 1.0]]
    """
    if inputs.dtype != np.uint8:
        return inputs  # pyright: ignore[reportReturnType]
    return jnp.asarray(inputs, dtype) * (1 / 255)  # a division would take longer


def as_floats(
    inputs: jax.Array | np.ndarray, targets: jax.Array | np.ndarray, dtype: DTypeLike
) -> tuple[jax.Array, jax.Array]:
    """Returns inputs as `as_float` does, and uint8 one-hot targets as 0 and 1.

    Args:
      inputs: ``(n, pixels)``, uint8, or of ``dtype`` already.
      targets: ``(n, classes)``, uint8, or of ``dtype`` already.
      dtype: of the parameters.

    Example:
      >>> inputs, targets = np.array([[0, 255]], np.uint8), np.array([[1]], np.uint8)
      >>> as_floats(inputs, targets, "float32")[1].tolist()
      [[1.0]]
    """
    if targets.dtype == np.uint8:
        targets = targets.astype(dtype)
    return as_float(inputs, dtype), targets  # pyright: ignore[reportReturnType]


def from_uint8(value_and_grad: ValueAndGrad) -> ValueAndGrad:
    """Returns a gradient function that takes uint8 inputs and targets, too.

    Args:
      value_and_grad: of inputs and targets in the parameters' dtype.

    Example:
      >>> from jaxnet import backprop, mlp
      >>> params = mlp.init(jax.random.key(0), (2, 1))
      >>> value_and_grad = from_uint8(backprop.value_and_grad)
      >>> inputs, targets = np.array([[0, 255]], np.uint8), np.ones((1, 1), np.uint8)
      >>> loss, _ = value_and_grad(params, inputs, targets)
      >>> loss.shape
      ()
    """

    def scaled(params: Params, inputs: Any, targets: Any) -> tuple[jax.Array, Params]:
        return value_and_grad(params, *as_floats(inputs, targets, params[0].weight.dtype))

    return scaled
