"""What a network makes of examples: loss, accuracy, confusion matrix, mistakes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import mlp
from jaxnet.data import Split
from jaxnet.data.pixels import as_float, as_floats
from jaxnet.types import Params

__all__ = ["Evaluation", "check_split", "evaluate", "loss_and_accuracy"]

_AT_ONCE = 10_000  # examples, so that memory does not grow with the set


class Evaluation(NamedTuple):
    """What a network makes of a test set.

    Attributes:
      loss: as `mlp.loss`.
      accuracy: share of examples whose predicted class is right.
      confusion: ``(classes, classes)`` counts; rows are true classes, columns predicted ones.
      predicted: ``(n,)`` predicted classes.
      mistakes: indices of the examples that were got wrong, the largest squared error first.
    """

    loss: float
    accuracy: float
    confusion: np.ndarray
    predicted: np.ndarray
    mistakes: np.ndarray


def evaluate(params: Params, split: Split) -> Evaluation:
    """Returns loss, accuracy, confusion matrix and mistakes on examples.

    Args:
      params: layers.
      split: examples; uint8, or of the parameters' dtype.

    Raises:
      ValueError: shapes that do not fit, or no examples.
      TypeError: dtypes that do not fit, or what is no `Split`.

    Example:
      >>> split = Split(np.ones((4, 3), np.uint8), np.eye(4, 2, dtype=np.uint8))
      >>> evaluate(mlp.init(jax.random.key(0), (3, 2)), split).confusion.sum()
      np.int64(4)
    """
    check_split("split", params, split)
    parts = range(0, len(split.inputs), _AT_ONCE)
    outputs = np.concatenate(
        [np.asarray(_outputs(params, split.inputs[at : at + _AT_ONCE])) for at in parts]
    )
    predicted, labels = np.asarray(mlp.classes(jnp.asarray(outputs))), split.labels
    errors = np.sum((outputs.astype(np.float64) - split.targets) ** 2, axis=1)
    classes = split.targets.shape[1]
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    wrong = np.flatnonzero(predicted != labels)
    return Evaluation(
        loss=float(np.mean(errors)),
        accuracy=float(np.mean(predicted == labels)),
        confusion=pairs.reshape(classes, classes),
        predicted=predicted,
        mistakes=wrong[np.argsort(-errors[wrong], kind="stable")],
    )


@jax.jit
def loss_and_accuracy(
    params: Params, inputs: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns `mlp.loss` and `mlp.accuracy` from one forward pass.

    Arguments and errors are those of `mlp.loss`; inputs and targets may be uint8.

    Example:
      >>> params = mlp.init(jax.random.key(0), (3, 2))
      >>> loss, accuracy = loss_and_accuracy(params, jnp.ones((4, 3)), jnp.ones((4, 2)))
    """
    check_split("split", params, Split(inputs, targets))  # pyright: ignore[reportArgumentType]
    inputs, targets = as_floats(inputs, targets, params[0].weight.dtype)
    outputs = mlp.propagate(params, inputs, None)[-1]
    right = mlp.classes(outputs) == mlp.classes(targets)
    return mlp.mean_squared_error(outputs, targets), jnp.mean(right, dtype=outputs.dtype)


def check_split(name: str, params: Params, split: Split) -> None:
    """Raises what `mlp.check` does; of uint8, what it would of the floats that they stand for.

    Raises:
      ValueError: shapes that do not fit, or no examples.
      TypeError: dtypes that do not fit, or what is no `Split`.

    Example:
      >>> check_split("train", mlp.init(jax.random.key(0), (3, 2)), (1, 2))
      Traceback (most recent call last):
      TypeError: train must be a data.Split of inputs and targets, got tuple
    """
    mlp.check_params(params)
    if not isinstance(split, Split):
        raise TypeError(
            f"{name} must be a data.Split of inputs and targets, got {type(split).__name__}"
        )
    dtype = params[0].weight.dtype
    mlp.check_given("targets", split.targets)
    as_floats = [
        np.broadcast_to(np.zeros((), dtype), array.shape)
        if getattr(array, "dtype", None) == np.uint8
        else array
        for array in split
    ]
    mlp.check(params, *as_floats)


@jax.jit
def _outputs(params: Params, inputs: jax.Array) -> jax.Array:
    return mlp.forward(params, as_float(inputs, params[0].weight.dtype))
