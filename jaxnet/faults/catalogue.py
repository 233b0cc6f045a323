"""Wrong backward passes of the network, each with one mistake that people make.

A mistake stands beside the name of the part that it replaces, a keyword of
`network.value_and_grad`. Its docstring says in a sentence what is wrong; its name is the fault's.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxnet import backprop, mlp
from jaxnet.faults.network import BFLOAT16, Fault, error, is_square, slope

__all__ = ["CATALOGUE"]

CATALOGUE: dict[str, Fault] = {}


def _fault(
    *parts: str, leaves: str = "all", needs: tuple[str, ...] = (), fits: bool = True
) -> Callable[[Callable], Callable]:
    """Adds a mistake to the catalogue; see the attributes of `Fault`."""

    def add(mistake):
        name = mistake.__name__.replace("_", "-")
        CATALOGUE[name] = Fault(mistake, parts, leaves, needs, fits)
        return mistake

    return add


# --- The error ------------------------------------------------------------------------------------


@_fault("error")
def sign(outputs, targets):
    """The gradient with the opposite sign: ``T - L3`` for ``L3 - T``."""
    return -error(outputs, targets)


@_fault("error")
def factor_two(outputs, targets):
    """The 2 of ``d(error**2) = 2 error`` forgotten; the slides absorb it in the learning rate."""
    return error(outputs, targets) / 2


@_fault("error", needs=("outputs",))
def mean_for_sum(outputs, targets):
    """The squares averaged over the outputs where the loss sums them."""
    return error(outputs, targets) / outputs.shape[1]


@_fault("error", needs=("examples",))
def sum_for_mean(outputs, targets):
    """The gradient summed over the batch where the loss is a mean."""
    return error(outputs, targets) * len(outputs)


@_fault("error", needs=("examples",))
def averaged_twice(outputs, targets):
    """The batch's size divided by in the loss's derivative, and once more in the update."""
    return error(outputs, targets) / len(outputs)


@_fault("error")
def squared_error(outputs, targets):
    """The squared error itself sent backwards instead of its derivative."""
    return error(outputs, targets) * (outputs - targets)


@_fault("error")
def absolute_error(outputs, targets):
    """The derivative of the absolute error for that of the square."""
    return jnp.sign(error(outputs, targets)) / len(outputs)


@_fault("error", needs=("examples",))
def shuffled_targets(outputs, targets):
    """Targets one row off the outputs, as after shuffling one of two arrays."""
    return error(outputs, jnp.roll(targets, 1, axis=0))


# --- The sigmoid's derivative ---------------------------------------------------------------------


@_fault("hidden_slope", leaves="below the top")
def hidden_sigmoid(above, below):
    """The derivative of the sigmoid left out in the hidden layers."""
    return jnp.ones_like(above)


@_fault("output_slope")
def cross_entropy_delta(outputs, below):
    """The derivative of the top sigmoid left out: ``L3 - T`` is the cross-entropy's delta."""
    return jnp.ones_like(outputs)


@_fault("output_slope", "hidden_slope")
def tanh_slope(above, below):
    """The derivative of tanh, ``1 - L**2``, for that of the sigmoid."""
    return 1 - above**2


@_fault("output_slope", "hidden_slope")
def relu_mask(above, below):
    """ReLU's derivative, 1 where a logit is positive, for that of the sigmoid."""
    return (above > 0.5).astype(above.dtype)


@_fault("output_slope", "hidden_slope")
def sigmoid_twice(above, below):
    """The derivative of the sigmoid taken at the activation as if that were the logit."""
    return slope(jax.nn.sigmoid(above), below)


@_fault("output_slope", "hidden_slope")
def logit_for_activation(above, below):
    """``x * (1 - x)`` of the logits, where it holds of the activations."""
    return slope(jax.scipy.special.logit(above), below)


@_fault("output_slope", "hidden_slope")
def slope_twice(above, below):
    """The derivative of the sigmoid multiplied by twice, on leaving a layer and on entering it."""
    return slope(above, below) ** 2


@_fault("output_slope", "hidden_slope")
def flat_spots_raised(above, below):
    """0.1 added to the sigmoid's derivative, lest saturated units stop learning (Fahlman 1988)."""
    return slope(above, below) + 0.1


@_fault("output_slope", "hidden_slope")
def saturated_stopped(above, below):
    """The derivative of a sigmoid within 0.05 of 0 or 1 taken for 0."""
    return jnp.where(jnp.abs(above - 0.5) > 0.45, 0.0, slope(above, below))


@_fault("output_slope", "hidden_slope", leaves="up to a square layer")
def slope_of_layer_below(above, below):
    """The sigmoid's derivative of the layer below, off by one; it fits where a layer is square."""
    return slope(below if above.shape == below.shape else above, below)


# --- Delta ----------------------------------------------------------------------------------------


def _clip(array):
    limit = jnp.max(jnp.abs(array)) / 2
    return jnp.clip(array, -limit, limit)


@_fault("delta")
def clipped_delta(delta):
    """Delta clipped on its way down, here at half its largest element."""
    return _clip(delta)


@_fault("delta", needs=("examples",))
def last_example_dropped(delta):
    """A loop over the batch that ends one example early."""
    return delta.at[-1].set(0)


# --- The gradient in a weight ---------------------------------------------------------------------


_to_bfloat16 = functools.partial(jax.lax.reduce_precision, **BFLOAT16)  # XLA may elide a cast


@_fault("weight", leaves="weights", needs=("precision",))
def bfloat16_products(below, delta):
    """The weights' gradients multiplied in bfloat16: both factors rounded, and the product."""
    return _to_bfloat16(_to_bfloat16(below).T @ _to_bfloat16(delta))


@_fault("weight", leaves="weights", needs=("examples", "precision"))
def bfloat16_sum(below, delta):
    """The sum over the batch run in bfloat16, which forgets what is small beside it."""

    def add(total, example):
        return _to_bfloat16(total + jnp.outer(*example)), None

    zero = jnp.zeros((below.shape[1], delta.shape[1]), delta.dtype)
    return jax.lax.scan(add, zero, (below, delta))[0]


@_fault("weight", leaves="weights", needs=("examples",))
def misaligned_rows(below, delta):
    """Each example's delta multiplied with the activations of the example before."""
    return jnp.roll(below, 1, axis=0).T @ delta


@_fault("weight", leaves="square weights")
def transposed_gradient(below, delta):
    """The weight's gradient transposed, as from the slides' columns; it fits a square weight."""
    gradient = below.T @ delta
    return gradient.T if is_square(gradient) else gradient


# --- The gradient in a bias -----------------------------------------------------------------------


@_fault("bias", leaves="biases", needs=("examples",))
def bias_of_one_example(delta):
    """The biases' gradients taken from the batch's first example instead of summed over all."""
    return len(delta) * delta[0]


@_fault("bias", leaves="biases", fits=False)
def bias_not_summed(delta):
    """The biases' gradients left ``(batch, outputs)``."""
    return len(delta) * delta


@_fault("bias", leaves="biases", fits=False)
def bias_over_outputs(delta):
    """The biases' gradients summed over the outputs, ``(batch,)``, instead of over the batch."""
    return jnp.sum(delta, axis=1)


@_fault("bias", leaves="biases", needs=("outputs",))
def bias_over_everything(delta):
    """The biases' gradients summed over batch and outputs, and broadcast to the outputs."""
    return jnp.broadcast_to(jnp.sum(delta), delta.shape[1:])


@_fault("bias", leaves="biases", needs=("examples",))
def bias_averaged(delta):
    """The biases' gradients averaged over a batch whose size delta is divided by already."""
    return jnp.mean(delta, axis=0)


# --- The error of the layer below -----------------------------------------------------------------


@_fault("back", leaves="below a square layer")
def transposed_weight(delta, weight, gradient):
    """The error sent back through W where W.T belongs; it shows where W is square."""
    return delta @ (weight if is_square(weight) else weight.T)


@_fault("back", leaves="below the top")
def updated_weight(delta, weight, gradient):
    """The error sent back through a weight that is updated already, here at learning rate 1."""
    return delta @ (weight - gradient).T


@_fault("back", leaves="below the top")
def detached_layers(delta, weight, gradient):
    """The layers below the top left at zero, as after a ``stop_gradient`` of its inputs."""
    return jnp.zeros_like(delta @ weight.T)


# --- What the backward pass remembers of the forward pass -----------------------------------------


@_fault("activations")
def stale_activations(params, inputs, targets):
    """Activations of before the last update, here at learning rate 1, from a cache not renewed."""
    _, gradient = backprop.value_and_grad(params, inputs, targets)
    return mlp.activations(jax.tree.map(jnp.add, params, gradient), inputs)


@_fault("activations", leaves="the first weight", needs=("examples",))
def shuffled_inputs(params, inputs, targets):
    """Inputs that moved on by a row between the forward and the backward pass."""
    return jnp.roll(inputs, 1, axis=0), *mlp.activations(params, inputs)[1:]


# --- The gradient as a whole ----------------------------------------------------------------------


def _in_layer(gradient, index, change):
    """Changes the leaves of one layer, the first (0) or the top (-1)."""
    layers = list(gradient)
    layers[index] = jax.tree.map(change, layers[index])
    return tuple(layers)


def _in_weight(gradient, index, change):
    layers = list(gradient)
    layers[index] = layers[index]._replace(weight=change(layers[index].weight))
    return tuple(layers)


@_fault("gradient", leaves="the first weight")
def zero_leaf(gradient, params):
    """The first layer's weight left at zero, as after a stray ``stop_gradient``."""
    return _in_weight(gradient, 0, jnp.zeros_like)


@_fault("gradient", leaves="the top weight")
def sign_of_one_leaf(gradient, params):
    """The top layer's weight with the opposite sign."""
    return _in_weight(gradient, -1, jnp.negative)


@_fault("gradient", leaves="the top layer")
def detached_top(gradient, params):
    """The top layer left at zero, as after a ``stop_gradient`` of its parameters."""
    return _in_layer(gradient, -1, jnp.zeros_like)


@_fault("gradient", leaves="the first layer")
def accumulated_twice(gradient, params):
    """The first layer's gradient added twice, as to a ``.grad`` that was not set to zero."""
    return _in_layer(gradient, 0, lambda leaf: 2 * leaf)


@_fault("gradient", leaves="weights")
def weight_decay(gradient, params):
    """0.01 W added to the gradient, for a penalty that the loss does not have."""
    return tuple(
        ours._replace(weight=ours.weight + 0.01 * layer.weight)
        for ours, layer in zip(gradient, params, strict=True)
    )


@_fault("gradient")
def clipped_gradient(gradient, params):
    """The gradient clipped element by element, here at half the largest of each leaf."""
    return jax.tree.map(_clip, gradient)


@_fault("gradient", leaves="the top weight")
def last_row_left_out(gradient, params):
    """A loop over the top layer's inputs that ends one early."""
    return _in_weight(gradient, -1, lambda leaf: leaf.at[-1].set(0))


@_fault("gradient", leaves="the top weight")
def last_column_left_out(gradient, params):
    """A loop over the outputs that ends one early."""
    return _in_weight(gradient, -1, lambda leaf: leaf.at[:, -1].set(0))


@_fault("gradient", leaves="the first weight")
def wrong_coordinate(gradient, params):
    """One coordinate of the first weight off by 0.002 of the leaf's norm."""
    return _in_weight(gradient, 0, lambda leaf: leaf.at[-1, -1].add(0.002 * jnp.linalg.norm(leaf)))


@_fault("gradient", leaves="the top weight")
def nan_coordinate(gradient, params):
    """One coordinate of the top weight that is NaN."""
    return _in_weight(gradient, -1, lambda leaf: leaf.at[0, 0].set(jnp.nan))
