"""Wrong backward passes, to be planted: what a gradient checker must catch.

Each is a function with the contract of `backprop.value_and_grad` and one mistake that people make.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnet import backprop, mlp
from jaxnet.mlp import Layer, Params


def sign(params, inputs, targets):
    """The gradient with the opposite sign: ``T - L3`` for ``L3 - T``."""
    value, gradient = backprop.value_and_grad(params, inputs, targets)
    return value, jax.tree.map(jnp.negative, gradient)


def factor_two(params, inputs, targets):
    """The 2 of ``d(error**2) = 2 error`` forgotten; the slides absorb it in the learning rate."""
    value, gradient = backprop.value_and_grad(params, inputs, targets)
    return value, jax.tree.map(lambda leaf: leaf / 2, gradient)


def mean_for_sum(params, inputs, targets):
    """The squares averaged over the outputs where the loss sums them."""
    value, gradient = backprop.value_and_grad(params, inputs, targets)
    return value, jax.tree.map(lambda leaf: leaf / targets.shape[1], gradient)


def zero_leaf(params, inputs, targets):
    """The first layer's weight left at zero, as after a stray ``stop_gradient``."""
    value, (first, *others) = backprop.value_and_grad(params, inputs, targets)
    return value, (first._replace(weight=jnp.zeros_like(first.weight)), *others)


def bias_of_one_example(params, inputs, targets):
    """The biases' gradients taken from the batch's first example instead of summed over all."""
    if len(inputs) < 2:
        raise ValueError("a gradient of one example for a batch needs two examples, got 1")
    value, gradient = backprop.value_and_grad(params, inputs, targets)
    _, first = backprop.value_and_grad(params, inputs[:1], targets[:1])
    return value, _with_biases(gradient, first)


def bias_not_summed(params, inputs, targets):
    """The biases' gradients left ``(batch, outputs)``."""
    value, gradient = backprop.value_and_grad(params, inputs, targets)
    _, per_example = jax.vmap(backprop.value_and_grad, in_axes=(None, 0, 0))(
        params, inputs[:, None, :], targets[:, None, :]
    )
    return value, _with_biases(gradient, per_example)


def hidden_sigmoid(params, inputs, targets):
    """The derivative of the sigmoid left out in the hidden layers."""
    if len(params) < 2:
        raise ValueError("a fault in the hidden layers needs one, got none")
    return _hand_written(params, inputs, targets, hidden_slope=jnp.ones_like)


def transposed_weight(params, inputs, targets):
    """The error sent back through W where W.T belongs; it shows where W is square.

    Raises:
      ValueError: a network none of whose layers above the first is square.
    """
    if not any(layer.weight.shape[0] == layer.weight.shape[1] for layer in params[1:]):
        raise ValueError(
            f"a transposed weight needs a square layer above the first, got {mlp.sizes(params)}"
        )

    def back(weight):
        return weight if weight.shape[0] == weight.shape[1] else weight.T

    return _hand_written(params, inputs, targets, back=back)


CATALOGUE: dict[str, Callable] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (
        sign,
        factor_two,
        mean_for_sum,
        zero_leaf,
        bias_of_one_example,
        bias_not_summed,
        hidden_sigmoid,
        transposed_weight,
    )
}


def _with_biases(gradient: Params, other: Params) -> Params:
    if gradient[0].bias is None:
        raise ValueError("a fault in the biases needs a network that has them")
    return tuple(
        Layer(ours.weight, theirs.bias) for ours, theirs in zip(gradient, other, strict=True)
    )


def _hand_written(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    hidden_slope: Callable[[jax.Array], jax.Array] = lambda above: above * (1 - above),
    back: Callable[[jax.Array], jax.Array] = jnp.transpose,
) -> tuple[jax.Array, Params]:
    """`backprop.value_and_grad` with two of its parts exchangeable; right as it stands."""
    layers = mlp.activations(params, inputs)
    outputs = layers[-1]
    delta = 2 / len(inputs) * (outputs - targets) * outputs * (1 - outputs)
    gradient = []
    for index in reversed(range(len(params))):
        weight, bias = params[index]
        gradient.insert(0, Layer(layers[index].T @ delta, None if bias is None else delta.sum(0)))
        delta = delta @ back(weight) * hidden_slope(layers[index])
    return mlp.mean_squared_error(outputs, targets), tuple(gradient)
