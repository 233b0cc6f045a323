"""The sigmoid network of the lecture: pure functions over a pytree of parameters.

Samples are rows, ``inputs @ weight``, where the slides have columns, ``W.dot(X)``: the slides' W is
the transpose of ``weight``.
"""

import functools
import itertools
import math
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

SCHEMES = ("glorot", "lecture")


class Layer(NamedTuple):
    """A fully connected layer, ``sigmoid(inputs @ weight + bias)``.

    Attributes:
      weight: ``(inputs, outputs)`` floating-point array.
      bias: ``(outputs,)`` array of the same dtype, or None (the lecture's program has no biases).
    """

    weight: Any
    bias: Any = None


Params = tuple[Layer, ...]


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
      scheme: ``"glorot"`` draws weights from Glorot and Bengio's uniform distribution (AISTATS
        2010), ``4 sqrt(6 / (inputs + outputs))`` to either side, and sets biases to 0; the 4 is for
        the logistic sigmoid, whose slope at 0 is 1/4 where tanh's is 1. ``"lecture"`` draws
        weights uniformly from [-1, 1) (slide "Vectorized forward pass"), and biases too: the
        lecture's w0 is a weight like others.
      bias: whether layers have biases.
      dtype: a floating-point dtype; None means float32, or float64 under ``jax_enable_x64``.

    Returns:
      ``len(sizes) - 1`` layers.

    Raises:
      ValueError: sizes that are not two or more positive integers, an unknown scheme, or float64
        without ``jax_enable_x64``.
      TypeError: a dtype that is not floating-point.
    """
    sizes = tuple(sizes)
    if len(sizes) < 2 or not all(_is_width(size) for size in sizes):
        raise ValueError(f"sizes must be two or more positive integers, got {sizes}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {scheme!r}")
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
      precision: floating-point dtype that the factors of products are rounded to, ``"bfloat16"``
        say, no wider than the parameters'; None means their own.

    Returns:
      ``len(params) + 1`` arrays: the inputs, then ``(batch, outputs)`` of each layer, of the dtype
      of sums: that of the factors, or float32 where those are of 16 bits (see `multiply`).

    Raises:
      ValueError: shapes that do not fit.
      TypeError: dtypes that do not fit, or a precision that is not floating-point, or wider than
        the parameters.
    """
    check(params, inputs)
    dtype = precision_of(params, precision)
    layers = [jnp.asarray(inputs)]
    for weight, bias in params:
        logits = multiply(layers[-1], weight, dtype)  # (batch, outputs)
        if bias is not None:
            logits += bias[None, :].astype(logits.dtype)
        layers.append(jax.nn.sigmoid(logits))
    return tuple(layers)


def multiply(left: jax.Array, right: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Returns ``left @ right``, both rounded to a dtype first, summed in float32 or float64.

    All else in the network has the precision of the sums. In 16 bits it would lose a saturated
    output's distance from its target: in bfloat16, sigmoid(4) is off by a tenth of that from 1.

    A dtype is what it says on all devices: left to itself, JAX rounds the factors of float32
    products to 10 bits on a GPU and 7 on a TPU. `jax.default_matmul_precision` chooses otherwise.
    """
    left, right = left.astype(dtype), right.astype(dtype)
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    exactly = jax.lax.Precision.HIGHEST if chosen is None else None
    return jnp.matmul(left, right, precision=exactly, preferred_element_type=wide(dtype))


def precision_of(params: Params, precision: DTypeLike | None) -> Any:
    """Returns the dtype that the factors of products are rounded to; see `activations`."""
    own = params[0].weight.dtype
    dtype = own if precision is None else jnp.dtype(precision)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"precision must be a floating-point dtype, got {dtype}")
    if jnp.finfo(dtype).bits > jnp.finfo(own).bits:
        raise TypeError(f"precision must be no wider than the parameters' {own}, got {dtype}")
    return dtype


def wide(dtype: DTypeLike) -> Any:
    """Returns the dtype of sums, activations and the loss: float32 where 16 bits are given."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


@functools.partial(jax.jit, static_argnames="precision")
def forward(params: Params, inputs: jax.Array, *, precision: DTypeLike | None = None) -> jax.Array:
    """Returns the network's outputs, ``(batch, outputs)`` in [0, 1].

    Arguments, dtype and errors are those of `activations` (slide "Vectorized forward pass").
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
      precision: see `activations`.

    Returns:
      A scalar, of the outputs' dtype.

    Raises:
      ValueError: shapes that do not fit, or an empty batch.
      TypeError: dtypes that do not fit.
    """
    check(params, inputs, targets)
    return mean_squared_error(forward(params, inputs, precision=precision), targets)


def mean_squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the squared error summed over outputs and averaged over the batch.

    Args:
      outputs: ``(batch, outputs)``.
      targets: ``(batch, outputs)``.

    Raises:
      ValueError: shapes that differ.
    """
    if jnp.shape(outputs) != jnp.shape(targets):
        raise ValueError(
            f"targets must have the outputs' shape {jnp.shape(outputs)}, got {jnp.shape(targets)}"
        )
    error = outputs - targets.astype(outputs.dtype)
    return jnp.mean(jnp.sum(error**2, axis=1))


def classes(outputs: jax.Array) -> jax.Array:
    """Returns the class that each row of outputs, or of one-hot targets, names.

    It is the index of the largest output; a network with one output answers yes (1) above 1/2.

    Args:
      outputs: ``(batch, outputs)``.

    Returns:
      ``(batch,)`` integers.
    """
    if outputs.shape[-1] == 1:
        return (outputs[..., 0] > 0.5).astype(int)
    return jnp.argmax(outputs, axis=-1)


@jax.jit
def predict(params: Params, inputs: jax.Array) -> jax.Array:
    """Returns the predicted class of each input, ``(batch,)`` integers; see `classes`.

    Arguments and errors are those of `activations`.
    """
    return classes(forward(params, inputs))


@jax.jit
def accuracy(params: Params, inputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the share of inputs whose predicted class is that of the one-hot target.

    Arguments and errors are those of `loss`.
    """
    check(params, inputs, targets)
    return jnp.mean(predict(params, inputs) == classes(targets), dtype=inputs.dtype)


def sizes(params: Params) -> tuple[int, ...]:
    """Returns the widths from the inputs to the outputs, e.g. ``(784, 256, 128, 10)``."""
    return (params[0].weight.shape[0], *(layer.weight.shape[1] for layer in params))


def check(
    params: Params,
    inputs: jax.Array | np.ndarray,
    targets: jax.Array | np.ndarray | None = None,
) -> None:
    """Raises what would otherwise fail deep inside, or broadcast in silence.

    Args:
      params: layers that must fit each other.
      inputs: must be ``(batch, inputs)`` with one row at least.
      targets: must be ``(batch, outputs)``, if given.

    Raises:
      ValueError: shapes that do not fit, or an empty batch.
      TypeError: dtypes that do not fit, or arguments that are not arrays.
    """
    dtype, width = _check_params(params)
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


def _check_params(params: Params) -> tuple[Any, int]:
    """Returns the parameters' dtype and the number of outputs, once the layers fit each other."""
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
        width, dtype = shape[1], jnp.result_type(layer.weight)
        if layer.bias is not None:
            _check_array(bias_name, layer.bias, dtype)
            if jnp.shape(layer.bias) != (width,):
                raise ValueError(
                    f"{bias_name} must have shape ({width},), got {jnp.shape(layer.bias)}"
                )
    return dtype, width


def save(path: str | os.PathLike, params: Params) -> None:
    """Writes parameters to an ``.npz`` file, each array under its path in the pytree.

    The names are ``[0].weight``, ``[0].bias``, ``[1].weight`` and so on. The file appears whole or
    not at all. bfloat16, which the format does not know, is stored as float32.

    Raises:
      ValueError: a path that does not end in ``.npz``, or layers that do not fit each other.
      TypeError: what is not a tuple of layers.
    """
    _check_params(params)
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
    arrays: dict[str, Any] = {
        jax.tree_util.keystr(place): leaf.astype(jnp.float32)
        if leaf.dtype == jnp.bfloat16
        else leaf
        for place, leaf in leaves
    }
    np.savez(partial, **arrays)
    partial.replace(path)


def load(path: str | os.PathLike) -> Params:
    """Reads the parameters that `save` wrote.

    float64 parameters become float32 unless ``jax_enable_x64`` is on, as everywhere in JAX.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that does not hold a network's parameters.
    """
    with open(path, "rb") as opened:
        if not zipfile.is_zipfile(opened):  # np.load would take it for a pickle
            raise ValueError(f"{path} is not an .npz file of parameters")
    try:
        with open(path, "rb") as opened, np.load(opened) as file:  # np.load may leave it open
            arrays = dict(file)
    except Exception as error:  # NumPy's reader lets through whatever a damaged file provokes
        raise ValueError(f"{path} is not an .npz file of parameters") from error
    names = [re.fullmatch(r"\[(\d+)\]\.(weight|bias)", name) for name in arrays]
    if not all(names) or not names:
        raise ValueError(
            f"{path} must hold arrays named [0].weight, [0].bias, ..., got {sorted(arrays)}"
        )
    depth = 1 + max(int(name[1]) for name in names if name)
    if missing := [i for i in range(depth) if f"[{i}].weight" not in arrays]:
        raise ValueError(f"{path} lacks [{missing[0]}].weight, got {sorted(arrays)}")
    params = tuple(
        Layer(*(_as_leaf(arrays.get(f"[{i}].{field}")) for field in Layer._fields))
        for i in range(depth)
    )
    try:
        _check_params(params)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error
    return params


def _as_leaf(array: np.ndarray | None) -> jax.Array | None:
    return None if array is None else jnp.asarray(array)


def _is_width(size: object) -> bool:
    return isinstance(size, int | np.integer) and not isinstance(size, bool) and bool(size > 0)


def _check_array(name: str, array: Any, dtype: Any) -> None:
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise TypeError(f"{name} must be an array, got {_describe(array)}")
    got = jnp.result_type(array)  # as JAX will see it: NumPy's float64 is float32 without x64
    if dtype is None and not jnp.issubdtype(got, jnp.floating):
        raise TypeError(f"{name} must be floating-point, got {got}")
    if dtype is not None and got != dtype:
        raise TypeError(f"{name} must have the dtype of params[0].weight, {dtype}, got {got}")


def _describe(value: object) -> str:
    return type(value).__name__
