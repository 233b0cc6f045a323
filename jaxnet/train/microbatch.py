"""Gradient accumulation: a batch in microbatches whose activations fit a cache, or the memory."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from jaxnet import mlp, products, record
from jaxnet.types import Params, ValueAndGrad

__all__ = ["accumulate", "check_rows", "microbatch_size"]

# The most bytes of activations: on a CPU a share of the last-level cache (measured on two cores,
# results/benchmark/README.md); elsewhere a share of a memory that also holds parameters and data.
_ACTIVATION_BYTES = {"cpu": 10_000_000, "other": 2_000_000_000}

# Batches and networks (rows; weights) for which two halves are faster on a CPU than the whole: XLA
# does not spread a product of so few rows over cores, but it runs two halves at the same time.
_HALVED_ROWS, _HALVED_WEIGHTS = range(96, 257), range(20_000, 500_001)


def accumulate(value_and_grad: ValueAndGrad, rows: int) -> ValueAndGrad:
    """Returns a gradient function that computes microbatches of ``rows`` rows and averages them.

    The result is the same up to rounding, and activations take the memory of one microbatch (of
    both, where there are just two).

    Args:
      value_and_grad: of a loss that is a mean over the batch.
      rows: of a microbatch, 1 or more. Where they do not divide the batch, the first microbatch
        holds the remainder.

    Raises:
      ValueError: ``rows`` below 1; when it is called, inputs and targets of different lengths.

    Example:
      >>> from jaxnet import backprop
      >>> params = mlp.init(jax.random.key(0), (3, 1))
      >>> value_and_grad = accumulate(backprop.value_and_grad, 2)
      >>> loss, gradient = value_and_grad(params, jnp.ones((5, 3)), jnp.ones((5, 1)))
      >>> loss.shape
      ()
    """
    if rows < 1:
        raise ValueError(f"rows must be 1 or more, got {rows}")

    def accumulated(params: Params, inputs: Any, targets: Any) -> tuple[jax.Array, Params]:
        total = check_rows(inputs, targets)
        if total <= rows:
            return value_and_grad(params, inputs, targets)

        def means(start, count):
            part = (jax.lax.dynamic_slice_in_dim(a, start, count) for a in (inputs, targets))
            return widen(value_and_grad(params, *part))

        def add(sums, start):
            return jax.tree.map(jnp.add, sums, means(start, rows)), None

        first = total % rows or rows
        sums = times(means(0, first), first / rows)
        if total == first + rows:  # without a loop, XLA may run the two at the same time
            sums, _ = add(sums, first)
        else:
            sums, _ = jax.lax.scan(add, sums, jnp.arange(first, total, rows))
        loss, gradient = times(sums, rows / total)
        return loss, like(gradient, params)

    return accumulated


def microbatch_size(
    params: Params,
    batch: int,
    platform: str,
    *,
    devices: int = 1,
    precision: DTypeLike | None = None,
) -> int:
    """Returns how many rows of a batch to compute at a time.

    If the activations of a device's rows exceed the budget, this is the largest divisor of them
    that fits and is at least half the largest size that fits; if there is none, that size. A few
    small batches are halved, because that is faster on a CPU.

    Args:
      params: layers; their widths say what a row takes.
      batch: rows in all.
      platform: ``"cpu"``, or another.
      devices: how many the batch is sharded over; on a CPU they share the cache.
      precision: the compute dtype, as in `mlp.activations`.

    Returns:
      From 1 to the rows of a device.

    Raises:
      ValueError: ``batch`` or ``devices`` below 1.
      TypeError: a precision that `mlp.activations` would refuse.

    Example:
      >>> microbatch_size(mlp.init(jax.random.key(0), (784, 256, 128, 10)), 60_000, "gpu")
      60000
    """
    if batch < 1 or devices < 1:
        raise ValueError(f"batch and devices must be 1 or more, got {batch} and {devices}")
    batch //= devices
    budget = _ACTIVATION_BYTES["other"]
    if platform == "cpu":  # measured on two cores; machines with many have larger caches
        budget = _ACTIVATION_BYTES["cpu"] // min(devices, 4)
    most = max(1, budget // (params[0].weight.dtype.itemsize * sum(mlp.sizes(params))))
    if batch <= most:
        halved = platform == "cpu" and devices == 1 and _is_halved(params, batch, precision)
        return (batch + 1) // 2 if halved else batch
    divisors = (rows for rows in range(most, most // 2, -1) if batch % rows == 0)
    return next(divisors, most)


def check_rows(inputs: ArrayLike, targets: ArrayLike) -> int:
    """Returns the number of rows, which inputs and targets must share.

    Raises:
      ValueError: inputs and targets of different lengths. (Slices that begin beyond the end of the
        shorter would be moved to its end.)

    Example:
      >>> check_rows(jnp.ones((5, 3)), jnp.ones((5, 1)))
      5
    """
    rows = jnp.shape(inputs)[0], jnp.shape(targets)[0]
    if rows[0] != rows[1]:
        raise ValueError(f"inputs and targets must have as many rows, got {rows[0]} and {rows[1]}")
    return rows[0]


def widen(tree: Any) -> Any:
    """Returns arrays in the dtype of sums: 16-bit sums would lose small addends."""
    return jax.tree.map(lambda array: array.astype(products.sum_dtype(array.dtype)), tree)


def times(tree: Any, factor: Any) -> Any:
    """Returns arrays times a number, in their own dtypes."""
    return jax.tree.map(lambda array: array * jnp.asarray(factor, array.dtype), tree)


def like(gradient: Any, params: Params) -> Params:
    """Returns a gradient in the parameters' dtypes."""
    return jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)


def _is_halved(params: Params, batch: int, precision: DTypeLike | None) -> bool:
    weights = sum(math.prod(layer.weight.shape) for layer in params)
    dtype = products.compute_dtype(
        params, precision
    )  # in bfloat16 halves lose as often as they win
    fits = batch in _HALVED_ROWS and weights in _HALVED_WEIGHTS
    return fits and dtype == jnp.float32 and record.cpus() != 1
