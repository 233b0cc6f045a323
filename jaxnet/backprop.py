"""The backward pass, written by hand.

The slides' three lines are the loop in `_backward`, one layer an iteration, for any depth::

    dW3 = (L3 - T) * L3*(1 - L3)
    dW2 = W3.T.dot(dW3) * (L2*(1 - L2))
    dW1 = W2.T.dot(dW2) * (L1*(1 - L1))

Each is the error that reaches a layer, times the derivative of its sigmoid. (The slides call it dW;
it is the gradient in the logits, ``delta`` here. The gradient in W is ``dW.dot(L.T)``.)
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnet import mlp, products
from jaxnet.types import Layer, Params

__all__ = ["loss", "value_and_grad"]


@functools.partial(jax.jit, static_argnames="precision")
def value_and_grad(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    precision: DTypeLike | None = None,
) -> tuple[jax.Array, Params]:
    """Returns `mlp.loss` and its gradient in the parameters, by the hand-written backward pass.

    The same contract as ``jax.value_and_grad(mlp.loss)``; slides "Vectorized backward pass".

    Args:
      params: layers.
      inputs: ``(batch, inputs)``, of the parameters' dtype.
      targets: ``(batch, outputs)``, of the same dtype.
      precision: compute dtype, forward and backward; see `mlp.activations`. With ``"bfloat16"`` and
        float32 parameters, sums, activations, loss and gradient are float32.

    Returns:
      The loss, a scalar, and a pytree like ``params``.

    Raises:
      ValueError: shapes that do not fit, or an empty batch.
      TypeError: dtypes that do not fit, or a ``precision`` that `mlp.activations` refuses.

    Example:
      >>> params = mlp.init(jax.random.key(0), (3, 2, 1))
      >>> loss, gradient = value_and_grad(params, jnp.ones((5, 3)), jnp.ones((5, 1)))
      >>> gradient[0].weight.shape
      (3, 2)
    """
    value, residuals = _forward(params, inputs, targets, precision)
    gradient, _, _ = _backward(precision, residuals, jnp.ones_like(value))
    return value, gradient


@functools.partial(jax.jit, static_argnames="precision")
def loss(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    precision: DTypeLike | None = None,
) -> jax.Array:
    """Returns `mlp.loss`, with the hand-written backward pass as its derivative.

    `jax.grad`, `jax.vmap`, optax and all else that asks for a gradient, in the parameters, the
    inputs or the targets, runs the hand-written pass, and may differentiate it again. As with any
    `jax.custom_vjp`, forward mode (`jax.jvp`) is not defined; take `mlp.loss` for that.

    Arguments, result and errors are those of `mlp.loss`.

    Example:
      >>> params = mlp.init(jax.random.key(0), (3, 2, 1))
      >>> jax.grad(loss)(params, jnp.ones((5, 3)), jnp.ones((5, 1)))[1].bias.shape
      (1,)
    """
    return _loss(params, inputs, targets, precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _loss(params: Params, inputs: jax.Array, targets: jax.Array, precision: Any) -> jax.Array:
    return _forward(params, inputs, targets, precision)[0]


def _forward(params, inputs, targets, precision):
    mlp.check_given("targets", targets)
    mlp.check(params, inputs, targets)
    layers = mlp.propagate(params, inputs, precision)  # X, L1, L2, L3
    return mlp.mean_squared_error(layers[-1], targets), (params, layers, targets)


def _backward(precision, residuals, cotangent):
    """Returns the gradients in params, inputs and targets, times the cotangent."""
    params, layers, targets = residuals
    dtype = products.compute_dtype(params, precision)
    error = layers[-1] - targets.astype(layers[-1].dtype)  # (batch, outputs)
    error *= cotangent * 2 / error.shape[0]  # d(error**2) = 2 error; the mean over the batch
    target_gradient = -error

    gradient = []
    for layer, below, above in zip(params[::-1], layers[-2::-1], layers[:0:-1], strict=True):
        delta = error * above * (1 - above)  # dW3 = (L3 - T) * L3*(1 - L3)
        weight = products.weight_gradient(below, delta, dtype)  # np.dot(dW3, L2.T)
        bias = None if layer.bias is None else jnp.sum(delta, axis=0)
        gradient.append(Layer(weight, bias))
        error = products.matmul(delta, products.transpose(layer.weight, dtype), dtype)  # W3.T.dot
    found = tuple(reversed(gradient)), error, target_gradient
    return jax.tree.map(lambda array: array.astype(targets.dtype), found)


_loss.defvjp(_forward, _backward)
