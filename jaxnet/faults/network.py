"""Wrong backward passes of the network: one right one, of which each fault exchanges a part.

A mistake stands beside the name of the part that it replaces, a keyword of `_hand_written`, and its
docstring tells it in a sentence.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnet import backprop, mlp, products
from jaxnet.types import Layer, Params


@dataclasses.dataclass(frozen=True)  # jax.jit takes weak references, which a tuple does not have
class Fault:
    """A wrong backward pass, called as `backprop.value_and_grad` is.

    Attributes:
      mistake: what stands in the place of the parts.
      parts: the parts of the right pass that it replaces.
      spoils: the leaves whose gradient it makes wrong; `spoilt` names them.
      needs: what the batch must have for the fault to show.
      fits: whether the gradient still has the shapes of the parameters.
    """

    mistake: Callable[..., Any]
    parts: tuple[str, ...]
    spoils: str
    needs: tuple[str, ...]
    fits: bool

    def __call__(
        self, params: Params, inputs: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, Params]:
        """Returns the loss and a wrong gradient.

        Raises:
          ValueError: a network or a batch that cannot have the fault, or shapes that do not fit.
          TypeError: dtypes that do not fit.
        """
        mlp.check(params, inputs, targets)
        if not self.spoilt(params):
            raise ValueError(_LEAVES[self.spoils].lack.format(sizes=mlp.sizes(params)))
        for met, message in map(_NEEDS.__getitem__, self.needs):
            if not met(inputs, targets):
                raise ValueError(message.format(dtype=inputs.dtype))
        return _hand_written(params, inputs, targets, **dict.fromkeys(self.parts, self.mistake))

    def spoilt(self, params: Params) -> set[str]:
        """Returns the paths of the leaves that the fault makes wrong, e.g. ``{"[0].bias"}``."""
        return {
            jax.tree_util.keystr(path)
            for path, _ in jax.tree_util.tree_leaves_with_path(params)
            if _LEAVES[self.spoils].include(params, path[0].idx, path[1].name)
        }


_BFLOAT16 = {"exponent_bits": 8, "mantissa_bits": 7}


class _Leaves(NamedTuple):
    include: Callable[[Params, int, str], bool]  # of the parameters, a layer's index and a field
    lack: str = ""  # the error where a network has none


def _is_square(weight: jax.Array) -> bool:
    return weight.shape[0] == weight.shape[1]


_LEAVES = {
    "all": _Leaves(lambda params, index, field: True),
    "weights": _Leaves(lambda params, index, field: field == "weight"),
    "biases": _Leaves(
        lambda params, index, field: field == "bias",
        "a fault in the biases needs a network that has them",
    ),
    "the first layer": _Leaves(lambda params, index, field: index == 0),
    "the first weight": _Leaves(lambda params, index, field: (index, field) == (0, "weight")),
    "the top layer": _Leaves(lambda params, index, field: index == len(params) - 1),
    "the top weight": _Leaves(
        lambda params, index, field: (index, field) == (len(params) - 1, "weight")
    ),
    "below the top": _Leaves(
        lambda params, index, field: index < len(params) - 1,
        "a fault in the hidden layers needs one, got none",
    ),
    "square weights": _Leaves(
        lambda params, index, field: field == "weight" and _is_square(params[index].weight),
        "a transposed gradient needs a square layer, got {sizes}",
    ),
    "up to a square layer": _Leaves(
        lambda params, index, field: any(_is_square(layer.weight) for layer in params[index:]),
        "a slope of the layer below needs a square layer, got {sizes}",
    ),
    "below a square layer": _Leaves(
        lambda params, index, field: any(_is_square(layer.weight) for layer in params[index + 1 :]),
        "a transposed weight needs a square layer above the first, got {sizes}",
    ),
}

_NEEDS: dict[str, tuple[Callable[[jax.Array, jax.Array], bool], str]] = {
    "examples": (
        lambda inputs, targets: len(inputs) > 1,
        "a fault of the batch needs two examples, got 1",
    ),
    "outputs": (
        lambda inputs, targets: targets.shape[1] > 1,
        "a fault of the outputs needs two of them, got 1",
    ),
    "precision": (
        lambda inputs, targets: jnp.finfo(inputs.dtype).nmant > _BFLOAT16["mantissa_bits"],
        "a fault of bfloat16 needs a dtype of more precision, got {dtype}",
    ),
}

CATALOGUE: dict[str, Fault] = {}


def _plant(
    *parts: str, spoils: str = "all", needs: tuple[str, ...] = (), fits: bool = True
) -> Callable[[Callable], Callable]:
    def plant(mistake):
        name = mistake.__name__.replace("_", "-")
        CATALOGUE[name] = Fault(mistake, parts, spoils, needs, fits)
        return mistake

    return plant


# --- The right backward pass ----------------------------------------------------------------------


def _error(outputs, targets):
    return 2 / len(outputs) * (outputs - targets)  # d(error**2) = 2 error; the mean over the batch


def _slope(above, below):
    return above * (1 - above)


def _hand_written(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    activations: Callable = lambda params, inputs, targets: mlp.activations(params, inputs),
    error: Callable = _error,
    output_slope: Callable = _slope,
    hidden_slope: Callable = _slope,
    delta: Callable = lambda delta: delta,
    weight: Callable = lambda below, delta: below.T @ delta,
    bias: Callable = lambda delta: jnp.sum(delta, axis=0),
    back: Callable = lambda delta, weight, gradient: delta @ weight.T,
    gradient: Callable = lambda gradient, params: gradient,
) -> tuple[jax.Array, Params]:
    """`backprop.value_and_grad` with exchangeable parts; right as it stands.

    Args:
      params: layers.
      inputs: ``(batch, inputs)``.
      targets: ``(batch, outputs)``.
      activations: the inputs and every layer's outputs, as the backward pass sees them.
      error: the loss's gradient in the outputs.
      output_slope: the top sigmoid's derivative, of its outputs and the layer's inputs.
      hidden_slope: the same of the other layers.
      delta: the gradient in a layer's logits, given that gradient.
      weight: the gradient in a layer's weight, of the layer's inputs and delta.
      bias: the gradient in a layer's bias, of delta.
      back: the error that reaches the layer below, of delta, the weight and the weight's gradient.
      gradient: the whole gradient, given that gradient and the parameters.
    """
    value, dtype = mlp.loss(params, inputs, targets), targets.dtype
    params, inputs, targets = jax.tree.map(  # no fault of 16 bits hides the one that is planted
        lambda leaf: jnp.asarray(leaf, products.sum_dtype(dtype)), (params, inputs, targets)
    )
    layers = activations(params, inputs, targets)
    errors, slope, leaves = error(layers[-1], targets), output_slope, []
    for layer, below, above in zip(params[::-1], layers[-2::-1], layers[:0:-1], strict=True):
        deltas = delta(errors * slope(above, below))
        leaves.append(Layer(weight(below, deltas), None if layer.bias is None else bias(deltas)))
        errors, slope = back(deltas, layer.weight, leaves[-1].weight), hidden_slope
    found = gradient(tuple(reversed(leaves)), params)
    return value, jax.tree.map(lambda leaf: leaf.astype(dtype), found)


# --- The error ------------------------------------------------------------------------------------


@_plant("error")
def sign(outputs, targets):
    """The gradient with the opposite sign: ``T - L3`` for ``L3 - T``."""
    return -_error(outputs, targets)


@_plant("error")
def factor_two(outputs, targets):
    """The 2 of ``d(error**2) = 2 error`` forgotten; the slides absorb it in the learning rate."""
    return _error(outputs, targets) / 2


@_plant("error", needs=("outputs",))
def mean_for_sum(outputs, targets):
    """The squares averaged over the outputs where the loss sums them."""
    return _error(outputs, targets) / outputs.shape[1]


@_plant("error", needs=("examples",))
def sum_for_mean(outputs, targets):
    """The gradient summed over the batch where the loss is a mean."""
    return _error(outputs, targets) * len(outputs)


@_plant("error", needs=("examples",))
def averaged_twice(outputs, targets):
    """The batch's size divided by in the loss's derivative, and once more in the update."""
    return _error(outputs, targets) / len(outputs)


@_plant("error")
def squared_error(outputs, targets):
    """The squared error itself sent backwards instead of its derivative."""
    return _error(outputs, targets) * (outputs - targets)


@_plant("error")
def absolute_error(outputs, targets):
    """The derivative of the absolute error for that of the square."""
    return jnp.sign(_error(outputs, targets)) / len(outputs)


@_plant("error", needs=("examples",))
def shuffled_targets(outputs, targets):
    """Targets one row off the outputs, as after shuffling one of two arrays."""
    return _error(outputs, jnp.roll(targets, 1, axis=0))


# --- The sigmoid's derivative ---------------------------------------------------------------------


@_plant("hidden_slope", spoils="below the top")
def hidden_sigmoid(above, below):
    """The derivative of the sigmoid left out in the hidden layers."""
    return jnp.ones_like(above)


@_plant("output_slope")
def cross_entropy_delta(outputs, below):
    """The derivative of the top sigmoid left out: ``L3 - T`` is the cross-entropy's delta."""
    return jnp.ones_like(outputs)


@_plant("output_slope", "hidden_slope")
def tanh_slope(above, below):
    """The derivative of tanh, ``1 - L**2``, for that of the sigmoid."""
    return 1 - above**2


@_plant("output_slope", "hidden_slope")
def relu_mask(above, below):
    """ReLU's derivative, 1 where a logit is positive, for that of the sigmoid."""
    return (above > 0.5).astype(above.dtype)


@_plant("output_slope", "hidden_slope")
def sigmoid_twice(above, below):
    """The derivative of the sigmoid taken at the activation as if that were the logit."""
    return _slope(jax.nn.sigmoid(above), below)


@_plant("output_slope", "hidden_slope")
def logit_for_activation(above, below):
    """``x * (1 - x)`` of the logits, where it holds of the activations."""
    return _slope(jax.scipy.special.logit(above), below)


@_plant("output_slope", "hidden_slope")
def slope_twice(above, below):
    """The derivative of the sigmoid multiplied by twice, on leaving a layer and on entering it."""
    return _slope(above, below) ** 2


@_plant("output_slope", "hidden_slope")
def flat_spots_raised(above, below):
    """0.1 added to the sigmoid's derivative, lest saturated units stop learning (Fahlman 1988)."""
    return _slope(above, below) + 0.1


@_plant("output_slope", "hidden_slope")
def saturated_stopped(above, below):
    """The derivative of a sigmoid within 0.05 of 0 or 1 taken for 0."""
    return jnp.where(jnp.abs(above - 0.5) > 0.45, 0.0, _slope(above, below))


@_plant("output_slope", "hidden_slope", spoils="up to a square layer")
def slope_of_layer_below(above, below):
    """The sigmoid's derivative of the layer below, off by one; it fits where a layer is square."""
    return _slope(below if above.shape == below.shape else above, below)


# --- Delta ----------------------------------------------------------------------------------------


def _clip(array):
    limit = jnp.max(jnp.abs(array)) / 2
    return jnp.clip(array, -limit, limit)


@_plant("delta")
def clipped_delta(delta):
    """Delta clipped on its way down, here at half its largest element."""
    return _clip(delta)


@_plant("delta", needs=("examples",))
def last_example_dropped(delta):
    """A loop over the batch that ends one example early."""
    return delta.at[-1].set(0)


# --- The gradient in a weight ---------------------------------------------------------------------


_to_bfloat16 = functools.partial(jax.lax.reduce_precision, **_BFLOAT16)  # XLA may elide a cast


@_plant("weight", spoils="weights", needs=("precision",))
def bfloat16_products(below, delta):
    """The weights' gradients multiplied in bfloat16: both factors rounded, and the product."""
    return _to_bfloat16(_to_bfloat16(below).T @ _to_bfloat16(delta))


@_plant("weight", spoils="weights", needs=("examples", "precision"))
def bfloat16_sum(below, delta):
    """The sum over the batch run in bfloat16, which forgets what is small beside it."""

    def add(total, example):
        return _to_bfloat16(total + jnp.outer(*example)), None

    zero = jnp.zeros((below.shape[1], delta.shape[1]), delta.dtype)
    return jax.lax.scan(add, zero, (below, delta))[0]


@_plant("weight", spoils="weights", needs=("examples",))
def misaligned_rows(below, delta):
    """Each example's delta multiplied with the activations of the example before."""
    return jnp.roll(below, 1, axis=0).T @ delta


@_plant("weight", spoils="square weights")
def transposed_gradient(below, delta):
    """The weight's gradient transposed, as from the slides' columns; it fits a square weight."""
    gradient = below.T @ delta
    return gradient.T if _is_square(gradient) else gradient


# --- The gradient in a bias -----------------------------------------------------------------------


@_plant("bias", spoils="biases", needs=("examples",))
def bias_of_one_example(delta):
    """The biases' gradients taken from the batch's first example instead of summed over all."""
    return len(delta) * delta[0]


@_plant("bias", spoils="biases", fits=False)
def bias_not_summed(delta):
    """The biases' gradients left ``(batch, outputs)``."""
    return len(delta) * delta


@_plant("bias", spoils="biases", fits=False)
def bias_over_outputs(delta):
    """The biases' gradients summed over the outputs, ``(batch,)``, instead of over the batch."""
    return jnp.sum(delta, axis=1)


@_plant("bias", spoils="biases", needs=("outputs",))
def bias_over_everything(delta):
    """The biases' gradients summed over batch and outputs, and broadcast to the outputs."""
    return jnp.broadcast_to(jnp.sum(delta), delta.shape[1:])


@_plant("bias", spoils="biases", needs=("examples",))
def bias_averaged(delta):
    """The biases' gradients averaged over a batch whose size delta is divided by already."""
    return jnp.mean(delta, axis=0)


# --- The error of the layer below -----------------------------------------------------------------


@_plant("back", spoils="below a square layer")
def transposed_weight(delta, weight, gradient):
    """The error sent back through W where W.T belongs; it shows where W is square."""
    return delta @ (weight if _is_square(weight) else weight.T)


@_plant("back", spoils="below the top")
def updated_weight(delta, weight, gradient):
    """The error sent back through a weight that is updated already, here at learning rate 1."""
    return delta @ (weight - gradient).T


@_plant("back", spoils="below the top")
def detached_layers(delta, weight, gradient):
    """The layers below the top left at zero, as after a ``stop_gradient`` of its inputs."""
    return jnp.zeros_like(delta @ weight.T)


# --- What the backward pass remembers of the forward pass -----------------------------------------


@_plant("activations")
def stale_activations(params, inputs, targets):
    """Activations of before the last update, here at learning rate 1, from a cache not renewed."""
    _, gradient = backprop.value_and_grad(params, inputs, targets)
    return mlp.activations(jax.tree.map(jnp.add, params, gradient), inputs)


@_plant("activations", spoils="the first weight", needs=("examples",))
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


@_plant("gradient", spoils="the first weight")
def zero_leaf(gradient, params):
    """The first layer's weight left at zero, as after a stray ``stop_gradient``."""
    return _in_weight(gradient, 0, jnp.zeros_like)


@_plant("gradient", spoils="the top weight")
def sign_of_one_leaf(gradient, params):
    """The top layer's weight with the opposite sign."""
    return _in_weight(gradient, -1, jnp.negative)


@_plant("gradient", spoils="the top layer")
def detached_top(gradient, params):
    """The top layer left at zero, as after a ``stop_gradient`` of its parameters."""
    return _in_layer(gradient, -1, jnp.zeros_like)


@_plant("gradient", spoils="the first layer")
def accumulated_twice(gradient, params):
    """The first layer's gradient added twice, as to a ``.grad`` that was not set to zero."""
    return _in_layer(gradient, 0, lambda leaf: 2 * leaf)


@_plant("gradient", spoils="weights")
def weight_decay(gradient, params):
    """0.01 W added to the gradient, for a penalty that the loss does not have."""
    return tuple(
        ours._replace(weight=ours.weight + 0.01 * layer.weight)
        for ours, layer in zip(gradient, params, strict=True)
    )


@_plant("gradient")
def clipped_gradient(gradient, params):
    """The gradient clipped element by element, here at half the largest of each leaf."""
    return jax.tree.map(_clip, gradient)


@_plant("gradient", spoils="the top weight")
def last_row_left_out(gradient, params):
    """A loop over the top layer's inputs that ends one early."""
    return _in_weight(gradient, -1, lambda leaf: leaf.at[-1].set(0))


@_plant("gradient", spoils="the top weight")
def last_column_left_out(gradient, params):
    """A loop over the outputs that ends one early."""
    return _in_weight(gradient, -1, lambda leaf: leaf.at[:, -1].set(0))


@_plant("gradient", spoils="the first weight")
def wrong_coordinate(gradient, params):
    """One coordinate of the first weight off by 0.002 of the leaf's norm."""
    return _in_weight(gradient, 0, lambda leaf: leaf.at[-1, -1].add(0.002 * jnp.linalg.norm(leaf)))


@_plant("gradient", spoils="the top weight")
def nan_coordinate(gradient, params):
    """One coordinate of the top weight that is NaN."""
    return _in_weight(gradient, -1, lambda leaf: leaf.at[0, 0].set(jnp.nan))
