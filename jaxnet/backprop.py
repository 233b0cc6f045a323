"""The backward pass, written by hand.

The slides' three lines are in `_backward`'s loop, one layer a turn, for any depth::

    dW3 = (L3 - T) * L3*(1 - L3)
    dW2 = W3.T.dot(dW3) * (L2*(1 - L2))
    dW1 = W2.T.dot(dW2) * (L1*(1 - L1))

Each is the error that reaches a layer, times the derivative of its sigmoid. (The slides call it dW;
it is the gradient in the logits, ``delta`` here. The gradient in W is ``dW.dot(L.T)``.)
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

from jaxnet import mlp
from jaxnet.mlp import Layer, Params

_FEW, _LONG = 32, 512  # outputs; rows or inputs


@functools.partial(jax.jit, static_argnames="precision")
def value_and_grad(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    precision: DTypeLike | None = None,
) -> tuple[jax.Array, Params]:
    """Returns `mlp.loss` and its gradient in the parameters.

    The same contract as ``jax.value_and_grad(mlp.loss)``; slides "Vectorized backward pass".

    Args:
      params: layers.
      inputs: ``(batch, inputs)``, of the parameters' dtype.
      targets: ``(batch, outputs)``, of the same dtype.
      precision: floating-point dtype that the factors of products are rounded to, forward and
        backward; None means the parameters' own. With ``"bfloat16"`` and float32 parameters, sums,
        activations, loss and gradient are float32.

    Returns:
      The loss, a scalar, and a pytree like ``params``.

    Raises:
      ValueError: shapes that do not fit, or an empty batch.
      TypeError: dtypes that do not fit, or a precision that is not floating-point.
    """
    value, residuals = _forward(params, inputs, targets, precision)
    gradient, _, _ = _backward(residuals, jnp.ones_like(value), precision)
    return value, gradient


@jax.custom_vjp
def _loss(params: Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    return _forward(params, inputs, targets)[0]


def _forward(params, inputs, targets, precision=None):
    mlp.check(params, inputs, targets)
    layers = mlp.activations(params, inputs, precision=precision)  # X, L1, L2, L3
    return mlp.mean_squared_error(layers[-1], targets), (params, layers, targets)


def _backward(residuals, cotangent, precision=None):
    """Returns the gradients in params, inputs and targets, times the cotangent."""
    params, layers, targets = residuals
    dtype = mlp.precision_of(params, precision)
    error = layers[-1] - targets.astype(layers[-1].dtype)  # (batch, outputs)
    error *= cotangent * 2 / error.shape[0]  # d(error**2) = 2 error; the mean over the batch
    target_gradient = -error

    gradient = []
    for layer, below, above in zip(params[::-1], layers[-2::-1], layers[:0:-1], strict=True):
        delta = error * above * (1 - above)  # dW3 = (L3 - T) * L3*(1 - L3)
        weight = _weight_gradient(below, delta, dtype)  # np.dot(dW3, L2.T)
        bias = None if layer.bias is None else jnp.sum(delta, axis=0)
        gradient.append(Layer(weight, bias))
        error = mlp.multiply(delta, _transpose(layer.weight, dtype), dtype)  # W3.T.dot(dW3)
    found = tuple(reversed(gradient)), error, target_gradient
    return jax.tree.map(lambda array: array.astype(targets.dtype), found)


# What follows is algebra's; how it is written is for the sake of XLA's products on CPU. The gains
# are in results/benchmark.


def _weight_gradient(below, delta, dtype):
    if delta.shape[1] > _FEW or max(below.shape) < _LONG or jnp.finfo(dtype).bits < 32:
        return mlp.multiply(_transpose(below, dtype), delta, dtype)
    # A long product with few columns is slow, one with few rows is not. The barrier keeps XLA from
    # turning it round again.
    return jax.lax.optimization_barrier(mlp.multiply(delta.T, below, dtype)).T


def _transpose(matrix, dtype):
    matrix = matrix.T.astype(dtype)
    if dtype != jnp.bfloat16:
        return matrix
    # Fast bfloat16 products take matrices only that lie in memory row by row. In other precisions
    # the copy would cost more than it won.
    return jax.lax.platform_dependent(matrix, cpu=_by_rows, default=lambda matrix: matrix)


def _by_rows(matrix):
    return with_layout_constraint(matrix, Layout(major_to_minor=(0, 1)))


_loss.defvjp(_forward, _backward)


@jax.jit
def loss(params: Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns `mlp.loss`, with the backward pass above as its derivative.

    `jax.grad`, `jax.jit`, `jax.vmap`, optax and all else that asks for a gradient runs the
    hand-written one, in the parameters, the inputs and the targets alike, and may differentiate it
    again. As with any `jax.custom_vjp`, forward mode (`jax.jvp`) of it alone does not exist; take
    `mlp.loss` for that.

    Arguments, result and errors are those of `mlp.loss`.
    """
    return _loss(params, inputs, targets)
