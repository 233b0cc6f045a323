"""The network's backward pass with exchangeable parts, and faults, which exchange some of them.

`value_and_grad` is right as it stands. A `Fault` calls it with a mistake in the place of one part.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnet import mlp, products
from jaxnet.types import Layer, Params

__all__ = ["BFLOAT16", "LEAVES", "NEEDS", "Fault", "error", "is_square", "slope", "value_and_grad"]

BFLOAT16 = {"exponent_bits": 8, "mantissa_bits": 7}  # as `jax.lax.reduce_precision` takes them


@dataclasses.dataclass(frozen=True)  # jax.jit takes weak references, which a tuple does not have
class Fault:
    """A backward pass with one mistake, called like `backprop.value_and_grad`.

    Attributes:
      mistake: the wrong function; its docstring says in a sentence what is wrong.
      parts: the keywords of `value_and_grad` for which the mistake is passed.
      leaves: which leaves of the gradient become wrong, a key of `LEAVES`. `wrong_leaves` lists
        their paths for a given network.
      needs: what a batch must have for the mistake to change the gradient; keys of `NEEDS`.
      fits: whether the wrong gradient has the shapes of the parameters.

    Example:
      >>> from jaxnet import faults
      >>> fault = faults.CATALOGUE["bias-not-summed"]
      >>> fault.mistake.__doc__
      "The biases' gradients left ``(batch, outputs)``."
      >>> fault.parts, fault.leaves, fault.fits
      (('bias',), 'biases', False)
    """

    mistake: Callable[..., Any]
    parts: tuple[str, ...]
    leaves: str
    needs: tuple[str, ...]
    fits: bool

    def __call__(
        self, params: Params, inputs: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, Params]:
        """Returns the loss and a wrong gradient.

        Args:
          params: layers.
          inputs: ``(batch, inputs)``, of the dtype of the parameters.
          targets: ``(batch, outputs)``, of the same dtype.

        Raises:
          ValueError: a network or a batch whose gradient the mistake would not change, or shapes
            that do not fit.
          TypeError: dtypes that do not fit.

        Example:
          >>> import jax
          >>> import jax.numpy as jnp
          >>> from jaxnet import backprop, faults, mlp
          >>> params = mlp.init(jax.random.key(0), (2, 1))
          >>> batch = jnp.ones((3, 2)), jnp.zeros((3, 1))
          >>> loss, gradient = faults.CATALOGUE["sign"](params, *batch)
          >>> _, right = backprop.value_and_grad(params, *batch)
          >>> bool(jnp.allclose(gradient[0].weight, -right[0].weight))
          True
        """
        mlp.check(params, inputs, targets)
        if not self.wrong_leaves(params):
            raise ValueError(LEAVES[self.leaves].lack.format(sizes=mlp.sizes(params)))
        for met, message in map(NEEDS.__getitem__, self.needs):
            if not met(inputs, targets):
                raise ValueError(message.format(dtype=inputs.dtype))
        return value_and_grad(params, inputs, targets, **dict.fromkeys(self.parts, self.mistake))

    def wrong_leaves(self, params: Params) -> set[str]:
        """Returns the paths of the leaves whose gradient becomes wrong.

        Args:
          params: layers; their shapes suffice.

        Returns:
          Paths as of `jax.tree_util.keystr`. None where the network lacks what the mistake needs.

        Example:
          >>> import jax
          >>> from jaxnet import faults, mlp
          >>> params = mlp.init(jax.random.key(0), (3, 2, 1))
          >>> sorted(faults.CATALOGUE["hidden-sigmoid"].wrong_leaves(params))
          ['[0].bias', '[0].weight']
        """
        return {
            jax.tree_util.keystr(path)
            for path, _ in jax.tree_util.tree_leaves_with_path(params)
            if LEAVES[self.leaves].include(params, path[0].idx, path[1].name)
        }


def is_square(weight: jax.Array) -> bool:
    """Returns whether a weight has as many inputs as outputs.

    Args:
      weight: ``(inputs, outputs)``.

    Example:
      >>> is_square(jnp.ones((2, 2))), is_square(jnp.ones((2, 3)))
      (True, False)
    """
    return weight.shape[0] == weight.shape[1]


class _Leaves(NamedTuple):
    include: Callable[[Params, int, str], bool]  # called with a layer's index and a field's name
    lack: str = ""  # the error where a network has no such leaf


LEAVES = {
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
        lambda params, index, field: field == "weight" and is_square(params[index].weight),
        "a transposed gradient needs a square layer, got {sizes}",
    ),
    "up to a square layer": _Leaves(
        lambda params, index, field: any(is_square(layer.weight) for layer in params[index:]),
        "a slope of the layer below needs a square layer, got {sizes}",
    ),
    "below a square layer": _Leaves(
        lambda params, index, field: any(is_square(layer.weight) for layer in params[index + 1 :]),
        "a transposed weight needs a square layer above the first, got {sizes}",
    ),
}

NEEDS: dict[str, tuple[Callable[[jax.Array, jax.Array], bool], str]] = {  # and the error if not
    "examples": (
        lambda inputs, targets: len(inputs) > 1,
        "a fault of the batch needs two examples, got 1",
    ),
    "outputs": (
        lambda inputs, targets: targets.shape[1] > 1,
        "a fault of the outputs needs two of them, got 1",
    ),
    "precision": (
        lambda inputs, targets: jnp.finfo(inputs.dtype).nmant > BFLOAT16["mantissa_bits"],
        "a fault of bfloat16 needs a dtype of more precision, got {dtype}",
    ),
}


def error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the gradient of the loss with respect to the network's outputs.

    Args:
      outputs: ``(batch, outputs)``.
      targets: ``(batch, outputs)``.

    Example:
      >>> error(jnp.array([[0.5], [1.0]]), jnp.array([[0.0], [1.0]])).tolist()
      [[0.5], [0.0]]
    """
    return 2 / len(outputs) * (outputs - targets)  # d(error**2) = 2 error; the mean over the batch


def slope(above: jax.Array, below: jax.Array) -> jax.Array:
    """Returns the derivative of a layer's sigmoid, computed from its outputs.

    Args:
      above: ``(batch, outputs)``, the layer's outputs.
      below: ``(batch, inputs)``, the layer's inputs, which are not used; mistakes use them.

    Example:
      >>> slope(jnp.array([[0.5]]), jnp.array([[0.0]])).tolist()
      [[0.25]]
    """
    return above * (1 - above)


def value_and_grad(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    activations: Callable = lambda params, inputs, targets: mlp.activations(params, inputs),
    error: Callable = error,
    output_slope: Callable = slope,
    hidden_slope: Callable = slope,
    delta: Callable = lambda delta: delta,
    weight: Callable = lambda below, delta: below.T @ delta,
    bias: Callable = lambda delta: jnp.sum(delta, axis=0),
    back: Callable = lambda delta, weight, gradient: delta @ weight.T,
    gradient: Callable = lambda gradient, params: gradient,
) -> tuple[jax.Array, Params]:
    """Returns the loss and its gradient by a backward pass whose parts can be replaced.

    Without replacements it returns what `backprop.value_and_grad` does. Gradients of 16-bit
    parameters are computed in float32, so that rounding does not hide a mistake.

    Args:
      params: layers.
      inputs: ``(batch, inputs)``.
      targets: ``(batch, outputs)``.
      activations: called with the three arguments above, returns the inputs and every layer's
        outputs.
      error: returns the gradient with respect to the outputs, see `error`.
      output_slope: the top layer's sigmoid derivative, see `slope`.
      hidden_slope: the same for the other layers.
      delta: called with the gradient with respect to a layer's logits, returns it.
      weight: called with a layer's inputs and delta, returns the weight's gradient.
      bias: called with delta, returns the bias's gradient.
      back: called with delta, the weight and the weight's gradient, returns the gradient with
        respect to the layer's inputs.
      gradient: called with the gradient and the parameters, returns the gradient.

    Returns:
      The loss, a scalar, and a pytree like the parameters, of their dtype.

    Example:
      >>> params = (Layer(jnp.array([[0.0]]), jnp.array([0.0])),)
      >>> batch = jnp.array([[2.0]]), jnp.array([[1.0]])
      >>> value_and_grad(params, *batch)[1][0].weight.tolist()
      [[-0.5]]
      >>> value_and_grad(params, *batch, delta=jnp.zeros_like)[1][0].weight.tolist()
      [[0.0]]
    """
    value, dtype = mlp.loss(params, inputs, targets), targets.dtype
    params, inputs, targets = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, products.sum_dtype(dtype)), (params, inputs, targets)
    )
    layers = activations(params, inputs, targets)
    errors, derivative, leaves = error(layers[-1], targets), output_slope, []
    for layer, below, above in zip(params[::-1], layers[-2::-1], layers[:0:-1], strict=True):
        deltas = delta(errors * derivative(above, below))
        leaves.append(Layer(weight(below, deltas), None if layer.bias is None else bias(deltas)))
        errors, derivative = back(deltas, layer.weight, leaves[-1].weight), hidden_slope
    found = gradient(tuple(reversed(leaves)), params)
    return value, jax.tree.map(lambda leaf: leaf.astype(dtype), found)
