"""The sigmoid network of the lecture: pure functions over a pytree of parameters.

Samples are rows, ``inputs @ weight``, where the slides have columns, ``W.dot(X)``: the slides' W is
the transpose of ``weight``.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from jaxnet import products
from jaxnet.types import Layer, Params

__all__ = [
    "SCHEMES",
    "Layer",
    "Params",
    "accuracy",
    "activations",
    "check",
    "check_params",
    "classes",
    "forward",
    "init",
    "loss",
    "mean_squared_error",
    "predict",
    "propagate",
    "sizes",
]

SCHEMES = ("glorot", "lecture")


def init(
    key: jax.Array,
    sizes: Sequence[int],
    *,
    scheme: str = "glorot",
    bias: bool = True,
    dtype: DTypeLike | None = None,
) -> Params:
    """Draws the parameters of a network.

    Args:
      key: a key of `jax.random`.
      sizes: two or more widths, from the inputs to the outputs: ``(784, 256, 128, 10)``.
      scheme: ``"glorot"`` draws weights uniformly from ``[-a, a)`` with
        ``a = 4 sqrt(6 / (inputs + outputs))``, and sets biases to 0. The factor 4 is for the
        logistic sigmoid, whose slope at 0 is 1/4 where that of tanh is 1. ``"lecture"`` draws
        weights and biases uniformly from [-1, 1).
      bias: whether layers have biases.
      dtype: a floating-point dtype; None means float32, or float64 under ``jax_enable_x64``.

    Returns:
      ``len(sizes) - 1`` layers.

    Raises:
      ValueError: sizes that are not two or more positive integers, an unknown scheme, or float64
        without ``jax_enable_x64``.
      TypeError: a dtype that is not floating-point, or a ``bias`` that is not a bool.

    References:
      Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks,
      AISTATS 2010; slide "Vectorized forward pass".

    Example:
      >>> params = init(jax.random.key(0), (784, 256, 128, 10))
      >>> [layer.weight.shape for layer in params]
      [(784, 256), (256, 128), (128, 10)]
    """
    sizes = tuple(sizes)
    if len(sizes) < 2 or not all(_is_width(size) for size in sizes):
        raise ValueError(f"sizes must be two or more positive integers, got {sizes}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
    if not isinstance(bias, bool):
        raise TypeError(f"bias must be True or False, got {bias!r}")
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype must be floating-point, got {dtype}")
    if dtype == jnp.float64 != jnp.result_type(float):
        raise ValueError("dtype float64 needs jax_enable_x64, which is off")
    return _init(key, sizes, scheme, bias, dtype)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _init(key, sizes, scheme, bias, dtype) -> Params:
    # A row more than inputs: the lecture's w0, the weight of x0 = 1. All layers are cut from one
    # draw, because every further draw would add a tenth of a second of compilation.
    shapes = [(inputs + 1, outputs) for inputs, outputs in itertools.pairwise(sizes)]
    counts = [math.prod(shape) for shape in shapes]
    draws = jax.random.uniform(key, (sum(counts),), dtype, minval=-1, maxval=1)
    draws = jnp.split(draws, list(itertools.accumulate(counts))[:-1])
    layers = []
    for (rows, outputs), draw in zip(shapes, draws, strict=True):
        weight, w0 = draw[outputs:].reshape(rows - 1, outputs), draw[:outputs]
        if scheme == "glorot":
            weight, w0 = weight * 4 * math.sqrt(6 / (rows - 1 + outputs)), jnp.zeros_like(w0)
        layers.append(Layer(weight, w0 if bias else None))
    return tuple(layers)


def activations(
    params: Params, inputs: jax.Array, *, precision: DTypeLike | None = None
) -> tuple[jax.Array, ...]:
    """Returns every layer's activations: the slides' X, L1, L2, L3.

    Args:
      params: layers.
      inputs: ``(batch, inputs)``, of the parameters' dtype.
      precision: the compute dtype, ``"bfloat16"`` say: a floating-point dtype, no wider than the
        parameters', that the factors of matrix products are rounded to. None means theirs.

    Returns:
      ``len(params) + 1`` arrays: the inputs, then ``(batch, outputs)`` of each layer, in the dtype
      of sums: that of the factors, or float32 where those have 16 bits (see `products`).

    Raises:
      ValueError: shapes that do not fit, or an empty batch.
      TypeError: dtypes that do not fit, or a precision that is not floating-point, or wider than
        the parameters.

    Example:
      >>> params = init(jax.random.key(0), (3, 2, 1))
      >>> [each.shape for each in activations(params, jnp.ones((5, 3)))]
      [(5, 3), (5, 2), (5, 1)]
    """
    check(params, inputs)
    return propagate(params, jnp.asarray(inputs), precision)


def propagate(
    params: Params, inputs: jax.Array, precision: DTypeLike | None
) -> tuple[jax.Array, ...]:
    """Returns what `activations` does, of arguments that `check` has passed.

    Example:
      >>> params = init(jax.random.key(0), (3, 2, 1))
      >>> propagate(params, jnp.ones((5, 3)), None)[-1].shape
      (5, 1)
    """
    dtype = products.compute_dtype(params, precision)
    layers = [inputs]
    for weight, bias in params:
        logits = products.matmul(layers[-1], weight, dtype)  # (batch, outputs)
        if bias is not None:
            logits += bias[None, :].astype(logits.dtype)
        layers.append(jax.nn.sigmoid(logits))
    return tuple(layers)


@functools.partial(jax.jit, static_argnames="precision")
def forward(params: Params, inputs: jax.Array, *, precision: DTypeLike | None = None) -> jax.Array:
    """Returns the network's outputs, ``(batch, outputs)`` in [0, 1].

    Arguments, dtype and errors are those of `activations` (slide "Vectorized forward pass").

    Example:
      >>> forward(init(jax.random.key(0), (3, 2, 1)), jnp.ones((5, 3))).shape
      (5, 1)
    """
    return activations(params, inputs, precision=precision)[-1]


@functools.partial(jax.jit, static_argnames="precision")
def loss(
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    precision: DTypeLike | None = None,
) -> jax.Array:
    """Returns the mean squared error, ``np.sum((L3 - T)**2) / n``.

    Slide "Vectorized weight updates": squares are summed over the outputs and averaged over the
    batch. The slide's update, ``W -= lr * dW.dot(L.T)``, sums over the batch and drops the factor 2
    of the derivative, so its ``lr`` is a learning rate of ``lr * batch / 2`` on this loss.

    Args:
      params: layers.
      inputs: ``(batch, inputs)``, of the parameters' dtype.
      targets: ``(batch, outputs)``, of the same dtype.
      precision: the compute dtype; see `activations`.

    Returns:
      A scalar, of the outputs' dtype.

    Raises:
      ValueError: shapes that do not fit, or an empty batch.
      TypeError: dtypes that do not fit.

    Example:
      >>> params = init(jax.random.key(0), (3, 2, 1))
      >>> loss(params, jnp.ones((5, 3)), jnp.ones((5, 1))).shape
      ()
    """
    check_given("targets", targets)
    check(params, inputs, targets)
    outputs = propagate(params, jnp.asarray(inputs), precision)[-1]
    return mean_squared_error(outputs, jnp.asarray(targets))


def mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the squared error summed over outputs and averaged over the batch.

    Args:
      outputs: ``(batch, outputs)``.
      targets: ``(batch, outputs)``.

    Raises:
      ValueError: shapes that differ.

    Example:
      >>> float(mean_squared_error(jnp.ones((5, 10)), jnp.zeros((5, 10))))
      10.0
    """
    if jnp.shape(outputs) != jnp.shape(targets):
        raise ValueError(
            f"targets must have the outputs' shape {jnp.shape(outputs)}, got {jnp.shape(targets)}"
        )
    error = outputs - targets.astype(outputs.dtype)
    return jnp.mean(jnp.sum(error**2, axis=1))


def classes(outputs: jax.Array) -> jax.Array:
    """Returns the class that each row of outputs, or of one-hot targets, names.

    It is the index of the largest output; with one output, it is 1 above 1/2 and 0 otherwise.

    Args:
      outputs: ``(batch, outputs)``.

    Returns:
      ``(batch,)`` integers.

    Example:
      >>> classes(jnp.array([[0.1, 0.9], [0.8, 0.3]])).tolist()
      [1, 0]
    """
    if outputs.shape[-1] == 1:
        return (outputs[..., 0] > 0.5).astype(int)
    return jnp.argmax(outputs, axis=-1)


@jax.jit
def predict(params: Params, inputs: jax.Array) -> jax.Array:
    """Returns the predicted class of each input, ``(batch,)`` integers; see `classes`.

    Arguments and errors are those of `activations`.

    Example:
      >>> predict(init(jax.random.key(0), (3, 2, 10)), jnp.ones((5, 3))).shape
      (5,)
    """
    return classes(forward(params, inputs))


@jax.jit
def accuracy(params: Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the share of inputs whose predicted class is that of the one-hot target.

    Arguments and errors are those of `loss`.

    Example:
      >>> params = init(jax.random.key(0), (3, 2, 1))
      >>> float(accuracy(params, jnp.ones((5, 3)), jnp.ones((5, 1)))) in (0.0, 1.0)
      True
    """
    check_given("targets", targets)
    check(params, inputs, targets)
    outputs = propagate(params, jnp.asarray(inputs), None)[-1]
    return jnp.mean(classes(outputs) == classes(jnp.asarray(targets)), dtype=inputs.dtype)


def sizes(params: Params) -> tuple[int, ...]:
    """Returns the widths from the inputs to the outputs.

    Example:
      >>> sizes(init(jax.random.key(0), (784, 30, 10)))
      (784, 30, 10)
    """
    return (params[0].weight.shape[0], *(layer.weight.shape[1] for layer in params))


def check(params: Params, inputs: ArrayLike, targets: ArrayLike | None = None) -> None:
    """Raises where shapes or dtypes do not fit: nothing broadcasts, nothing is cast.

    Args:
      params: layers that must fit each other.
      inputs: must be ``(batch, inputs)`` with one row at least.
      targets: must be ``(batch, outputs)``, if given.

    Raises:
      ValueError: shapes that do not fit, or an empty batch.
      TypeError: dtypes that do not fit, or arguments that are not arrays.

    Example:
      >>> check(init(jax.random.key(0), (3, 2, 1)), jnp.ones((5, 4)))
      Traceback (most recent call last):
      ValueError: inputs must have shape (batch, 3), got (5, 4)
    """
    dtype, width = check_params(params)
    _check_array("inputs", inputs, dtype)
    shape, fan_in = jnp.shape(inputs), jnp.shape(params[0].weight)[0]
    if len(shape) != 2 or shape[1] != fan_in:
        raise ValueError(f"inputs must have shape (batch, {fan_in}), got {shape}")
    if shape[0] == 0:
        raise ValueError("inputs must have at least one row, got an empty batch")
    if targets is not None:
        _check_array("targets", targets, dtype)
        if jnp.shape(targets) != (shape[0], width):
            raise ValueError(
                f"targets must have shape ({shape[0]}, {width}), got {jnp.shape(targets)}"
            )


def check_params(params: Params) -> tuple[Any, int]:
    """Returns the dtype of parameters and the number of outputs, once the layers fit each other.

    Raises:
      ValueError: shapes that do not fit, or a width of 0.
      TypeError: what is not a tuple of layers, or dtypes that differ or are not floating-point.

    Example:
      >>> check_params(init(jax.random.key(0), (3, 2, 1), dtype="float32"))
      (dtype('float32'), 1)
    """
    if not isinstance(params, tuple) or not params:
        raise TypeError(f"params must be a non-empty tuple of Layer, got {_describe(params)}")
    width, dtype = 0, None
    for index, layer in enumerate(params):
        if not isinstance(layer, Layer):
            raise TypeError(f"params[{index}] must be a Layer, got {_describe(layer)}")
        rows = width if index else "inputs"
        weight_name, bias_name = f"params[{index}].weight", f"params[{index}].bias"
        _check_array(weight_name, layer.weight, dtype)
        shape = jnp.shape(layer.weight)
        if len(shape) != 2 or (index and shape[0] != width):
            raise ValueError(f"{weight_name} must have shape ({rows}, outputs), got {shape}")
        if 0 in shape:
            raise ValueError(f"{weight_name} must not be empty, got shape {shape}")
        width, dtype = shape[1], jnp.result_type(layer.weight)
        if layer.bias is not None:
            _check_array(bias_name, layer.bias, dtype)
            if jnp.shape(layer.bias) != (width,):
                raise ValueError(
                    f"{bias_name} must have shape ({width},), got {jnp.shape(layer.bias)}"
                )
    return dtype, width


def _is_width(size: object) -> bool:
    return isinstance(size, int | np.integer) and not isinstance(size, bool) and bool(size > 0)


def _check_array(name: str, array: Any, dtype: Any) -> None:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise TypeError(f"{name} must be an array, got {_describe(array)}")
    try:
        got = jnp.result_type(array)  # as JAX will see it: NumPy's float64 is float32 without x64
    except TypeError as error:
        raise TypeError(f"{name} must have a dtype of JAX, got {array.dtype}") from error
    if dtype is None and not jnp.issubdtype(got, jnp.floating):
        raise TypeError(f"{name} must be floating-point, got {got}")
    if dtype is not None and got != dtype:
        raise TypeError(f"{name} must have the dtype of params[0].weight, {dtype}, got {got}")


def check_given(name: str, array: Any) -> None:
    if array is None:
        raise TypeError(f"{name} must be an array, got NoneType")


def _describe(value: object) -> str:
    return type(value).__name__


def __getattr__(name: str) -> Any:
    if name in ("load", "save"):  # where they were in version 0.1
        from jaxnet import checkpoint

        warnings.warn(f"mlp.{name} is checkpoint.{name} now", DeprecationWarning, stacklevel=2)
        return getattr(checkpoint, name)
    raise AttributeError(f"module 'jaxnet.mlp' has no attribute {name!r}")
