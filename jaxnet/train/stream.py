"""Loss and gradient over data that need not fit into memory."""

import collections
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.data.pixels import from_uint8
from jaxnet.train.microbatch import check_rows, like, times, widen
from jaxnet.types import Params, ValueAndGrad

__all__ = ["read", "stream"]


def stream(
    value_and_grad: ValueAndGrad, params: Params, parts: Iterable[tuple[Any, Any]]
) -> tuple[jax.Array, Params]:
    """Returns loss and gradient over all parts of a dataset.

    While the device computes a part, the host reads the next one. At most three are held.

    Args:
      value_and_grad: of a loss that is a mean over the batch. It is compiled once for as long as it
        is the same object: make a `functools.partial`, say, only once.
      params: layers.
      parts: pairs of inputs, uint8 or floating-point, and targets; all but the last of one length.

    Raises:
      ValueError: no parts, or inputs and targets of different lengths.

    Example:
      >>> from jaxnet import backprop, mlp
      >>> params = mlp.init(jax.random.key(0), (3, 1))
      >>> parts = [(np.ones((4, 3), np.uint8), np.ones((4, 1), np.uint8))] * 2
      >>> stream(backprop.value_and_grad, params, parts)[0].shape
      ()
    """
    sums, total, started = None, 0, collections.deque()
    for inputs, targets in parts:
        rows = check_rows(inputs, targets)
        total += rows
        sums = _add(value_and_grad, sums, params, *jax.device_put((inputs, targets)))
        started.append(sums[0])
        if len(started) > 2:
            started.popleft().block_until_ready()
    if sums is None:
        raise ValueError("parts must be one or more, got none")
    loss, gradient = times(sums, 1 / total)
    return loss, like(gradient, params)


@functools.partial(jax.jit, static_argnums=0)
def _add(value_and_grad, sums, params, inputs, targets):
    means = times(widen(from_uint8(value_and_grad)(params, inputs, targets)), len(inputs))
    return means if sums is None else jax.tree.map(jnp.add, sums, means)


def read(
    inputs: str | os.PathLike, targets: str | os.PathLike, rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads two `.npy` files part by part, of which no more is mapped into memory at once.

    Args:
      inputs: path of ``(n, inputs)``.
      targets: path of ``(n, outputs)``.
      rows: of a part, 1 or more.

    Raises:
      ValueError: ``rows`` below 1, or files of different lengths.
      OSError: a file that cannot be read.

    Example:
      >>> import tempfile
      >>> path = tempfile.mkdtemp() + "/x.npy"
      >>> np.save(path, np.ones((5, 3)))
      >>> [len(inputs) for inputs, targets in read(path, path, 2)]
      [2, 2, 1]
    """
    if rows < 1:
        raise ValueError(f"rows must be 1 or more, got {rows}")
    total = check_rows(*(np.load(path, mmap_mode="r") for path in (inputs, targets)))

    def parts():
        for start in range(0, total, rows):
            # Mapped anew each time: the pages of a map that stays count as the process's memory.
            part = slice(start, start + rows)
            yield np.load(inputs, mmap_mode="r")[part], np.load(targets, mmap_mode="r")[part]

    return parts()
