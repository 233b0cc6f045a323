"""How examples reach a step: as floats, in random order, and no more at once than a cache holds."""

import collections
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jaxnet import mlp, record
from jaxnet.mlp import Params

ValueAndGrad = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, Params]]
Devices = Sequence[Any]  # of `jax.Device`

# What activations may take, measured (results/benchmark): on a CPU a share of the last cache, on
# others of a memory that holds the parameters and the data as well.
_CHUNK_BYTES = {"cpu": 10_000_000, "other": 2_000_000_000}
# What a CPU takes by halves, measured on two cores: rows of a batch, and weights of the network.
# XLA shares no product of so few rows among cores, but it does take two halves side by side.
_HALVED_ROWS, _HALVED_WEIGHTS = range(96, 257), range(20_000, 500_001)
_ROWS = "rows"  # the axis of a mesh of devices
_FETCHED = 2_560  # examples that are brought together at once


def as_float(inputs: jax.Array, dtype: Any) -> jax.Array:
    """Returns inputs that are bytes as floats, so that 255 becomes 1; others as they are.

    Args:
      inputs: uint8, or of the dtype already.
      dtype: of the parameters.
    """
    if inputs.dtype != np.uint8:
        return inputs
    return jnp.asarray(inputs, dtype) * (1 / 255)  # a division would take longer


def as_floats(inputs: jax.Array, targets: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Returns inputs as `as_float` does, and one-hot targets that are bytes as 0 and 1."""
    is_stored = targets.dtype == np.uint8
    return as_float(inputs, dtype), targets.astype(dtype) if is_stored else targets


def from_bytes(value_and_grad: ValueAndGrad) -> ValueAndGrad:
    """Returns a function that also takes inputs and targets that are bytes."""

    def scaled(params, inputs, targets):
        return value_and_grad(params, *as_floats(inputs, targets, params[0].weight.dtype))

    return scaled


def accumulate(value_and_grad: ValueAndGrad, chunk: int) -> ValueAndGrad:
    """Returns a function of the same result, to rounding, that takes a batch ``chunk`` rows a turn.

    Activations then take the memory of a chunk (of both, where there are just two and they may be
    taken side by side), and stay in a cache that holds them.

    Args:
      value_and_grad: of a loss that is a mean over the batch.
      chunk: rows at a time, 1 or more; the first turn has what fills none.

    Raises:
      ValueError: a chunk below 1; where it is called, inputs and targets of different lengths.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be 1 or more, got {chunk}")

    def accumulated(params, inputs, targets):
        total = check_rows(inputs, targets)
        if total <= chunk:
            return value_and_grad(params, inputs, targets)

        def means(start, rows):
            of_chunk = (jax.lax.dynamic_slice_in_dim(a, start, rows) for a in (inputs, targets))
            return _widen(value_and_grad(params, *of_chunk))

        def add(sums, start):
            return jax.tree.map(jnp.add, sums, means(start, chunk)), None

        first = total % chunk or chunk
        sums = _times(means(0, first), first / chunk)
        if total == first + chunk:  # without a loop two may be taken side by side
            sums, _ = add(sums, first)
        else:
            sums, _ = jax.lax.scan(add, sums, jnp.arange(first, total, chunk))
        loss, gradient = _times(sums, chunk / total)
        return loss, _like(gradient, params)

    return accumulated


def _widen(tree: Any) -> Any:
    """Returns arrays of the dtype of sums: those of 16 bits would lose small addends."""
    return jax.tree.map(lambda array: array.astype(mlp.wide(array.dtype)), tree)


def _times(tree: Any, factor: Any) -> Any:
    return jax.tree.map(lambda array: array * jnp.asarray(factor, array.dtype), tree)


def _like(gradient: Any, params: Params) -> Params:
    return jax.tree.map(lambda g, p: g.astype(p.dtype), gradient, params)


def check_rows(inputs: Any, targets: Any) -> int:
    """Returns how many rows there are.

    Raises:
      ValueError: inputs and targets of different lengths.
    """
    if len(inputs) != len(targets):  # slices beyond an end would begin before it
        raise ValueError(
            f"inputs and targets must have as many rows, got {len(inputs)} and {len(targets)}"
        )
    return len(inputs)


def share(value_and_grad: ValueAndGrad, devices: Devices) -> ValueAndGrad:
    """Returns a function of the same result, to rounding, that shares rows out among devices.

    Each takes the gradient of as many rows; what comes of them is averaged. A core of a CPU can be
    such a device (``jax_num_cpu_devices``): it then keeps its rows to itself from the first layer
    to the last, where it would otherwise exchange parts of each product with the other cores.

    Args:
      value_and_grad: of a loss that is a mean over the batch.
      devices: one or more, as many as divide the batch; parameters lie on all of them.

    Raises:
      ValueError: where it is called, rows that cannot be shared out evenly.
    """
    if not devices:
        raise ValueError("devices must be one or more, got none")
    if len(devices) == 1:
        return value_and_grad  # there is nothing to add up, and XLA would see to it in every step

    def mean(params, inputs, targets):
        return jax.lax.pmean(value_and_grad(params, inputs, targets), _ROWS)

    rows, same = PartitionSpec(_ROWS), PartitionSpec()
    # Unchecked, because otherwise jax.grad within would sum over devices what is averaged here.
    shared = jax.shard_map(
        mean, mesh=_mesh(devices), in_specs=(same, rows, rows), out_specs=same, check_vma=False
    )

    def checked(params, inputs, targets):
        total = check_rows(inputs, targets)
        if total % len(devices):
            raise ValueError(
                f"devices must share out the {total} rows of a batch evenly, got {len(devices)}"
            )
        return shared(params, inputs, targets)

    return checked


def choose_devices(devices: Devices, batch: int) -> Devices:
    """Returns the most of devices that can share a batch evenly, with 1,000 rows each, or one.

    For fewer, adding up what comes of them would take longer than they save.
    """
    most = min(len(devices), max(1, batch // 1_000))
    return devices[: next(n for n in range(most, 0, -1) if batch % n == 0)]


def place(tree: Any, devices: Devices, *, rows: bool) -> Any:
    """Returns arrays on devices: their rows shared out among them, or all of it on each."""
    spec = PartitionSpec(_ROWS) if rows else PartitionSpec()
    return jax.device_put(tree, NamedSharding(_mesh(devices), spec))


def _mesh(devices: Devices) -> Mesh:
    return Mesh(np.asarray(devices), (_ROWS,))


def rows_per_chunk(
    params: Params,
    batch: int,
    platform: str,
    devices: int = 1,
    *,
    precision: DTypeLike | None = None,
) -> int:
    """Returns how many rows of a batch to take at a time.

    Args:
      params: whose widths say what a row needs.
      batch: rows in all.
      platform: ``"cpu"``, or another, where the batch is cut only if memory would not hold it.
      devices: how many share the batch, and the cache of a CPU.
      precision: of products, as in `mlp.activations`.

    Returns:
      From 1 to what each device has of the batch. What memory or cache would not hold whole is cut
      evenly where that takes no more than twice the cuts; some batches a CPU takes by halves.

    Raises:
      TypeError: a precision that `mlp.activations` would refuse.
    """
    batch //= devices
    # Two cores have been measured; machines that have many have larger caches.
    budget = _CHUNK_BYTES["cpu"] // min(devices, 4) if platform == "cpu" else _CHUNK_BYTES["other"]
    most = max(1, budget // (params[0].weight.dtype.itemsize * sum(mlp.sizes(params))))
    if batch <= most:
        halved = platform == "cpu" and devices == 1 and _is_halved(params, batch, precision)
        return (batch + 1) // 2 if halved else batch
    even = (rows for rows in range(most, most // 2, -1) if batch % rows == 0)
    return next(even, most)


def _is_halved(params, batch, precision):
    weights = sum(math.prod(layer.weight.shape) for layer in params)
    dtype = mlp.precision_of(params, precision)  # in bfloat16 halves win as often as they lose
    fits = batch in _HALVED_ROWS and weights in _HALVED_WEIGHTS
    return fits and dtype == jnp.float32 and record.cpus() != 1


def draw(key: jax.Array, number: jax.Array | int, examples: int, batch_size: int) -> jax.Array:
    """Returns the examples of each minibatch of an epoch, ``(steps, batch_size)`` indices.

    Those that fill no minibatch are left out, others in every epoch.
    """
    # In the order of 32 random bits; two of 60,000 share theirs in every other epoch.
    bits = jax.random.bits(jax.random.fold_in(key, number), (examples,), jnp.uint32)
    steps = examples // batch_size
    return _argsort(bits)[: steps * batch_size].reshape(steps, batch_size)


def _argsort(keys: jax.Array) -> jax.Array:
    """Returns `jnp.argsort` of uint32 keys, by a radix sort.

    On a CPU XLA sorts numbers five times as fast as pairs of them. Of each key some bits a time,
    the lowest first, and its place make one number.
    """
    place = (len(keys) - 1).bit_length()
    places = jnp.arange(len(keys), dtype=jnp.uint32)
    order = places
    for shift in range(0, 32, 32 - place):
        digits = (keys[order] >> shift) << place
        order = order[jnp.sort(digits | places) & (2**place - 1)]
    return order.astype(jnp.int32)


def scan(
    step: Callable[[Any, jax.Array, jax.Array], tuple[Any, jax.Array]],
    state: Any,
    rows: jax.Array,
    inputs: jax.Array,
    targets: jax.Array,
) -> tuple[Any, jax.Array]:
    """Takes a step with each minibatch, ``step(state, inputs, targets) -> (state, loss)``.

    Args:
      step: of training.
      state: what it changes.
      rows: ``(steps, batch_size)`` indices.
      inputs: ``(examples, inputs)``.
      targets: ``(examples, outputs)``.

    Returns:
      The last state, and the losses, ``(steps,)``.
    """

    # Some thousand examples are brought together at once: a batch at a time is slower by 15% with
    # batches of 10, all at once by 5% with batches of 128, and takes the memory of another dataset.
    def some(state, rows):
        return jax.lax.scan(lambda s, batch: step(s, *batch), state, (inputs[rows], targets[rows]))

    steps, batch_size = rows.shape
    per = min(steps, max(1, _FETCHED // batch_size))
    turns = steps // per
    state, losses = jax.lax.scan(some, state, rows[: turns * per].reshape(turns, per, batch_size))
    losses = losses.reshape(-1)
    if steps % per:
        state, rest = some(state, rows[turns * per :])
        losses = jnp.concatenate([losses, rest])
    return state, losses


def stream(
    value_and_grad: ValueAndGrad, params: Params, chunks: Iterable[tuple[Any, Any]]
) -> tuple[jax.Array, Params]:
    """Returns loss and gradient over data that need not fit into memory.

    While the device works on a chunk, the host brings the next one; more than a few are never held.

    Args:
      value_and_grad: of a loss that is a mean over the batch. It is compiled once for as long as it
        is the same object: a `functools.partial`, say, is best made only once.
      params: layers.
      chunks: pairs of inputs, which may be bytes, and targets; all but the last of one length.

    Raises:
      ValueError: no chunks, or inputs and targets of different lengths.
    """
    sums, total, started = None, 0, collections.deque()
    for inputs, targets in chunks:
        rows = check_rows(inputs, targets)
        total += rows
        sums = _add(value_and_grad, sums, params, *jax.device_put((inputs, targets)))
        started.append(sums[0])
        if len(started) > 2:
            started.popleft().block_until_ready()
    if sums is None:
        raise ValueError("chunks must be one or more, got none")
    loss, gradient = _times(sums, 1 / total)
    return loss, _like(gradient, params)


@functools.partial(jax.jit, static_argnums=0)
def _add(value_and_grad, sums, params, inputs, targets):
    means = _widen(from_bytes(value_and_grad)(params, inputs, targets))
    means = _times(means, len(inputs))
    return means if sums is None else jax.tree.map(jnp.add, sums, means)


def read(
    inputs: str | os.PathLike, targets: str | os.PathLike, chunk: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Returns so many rows at a time of two ``.npy`` files, of which no more is mapped at once.

    Args:
      inputs: path of ``(n, inputs)``.
      targets: path of ``(n, outputs)``.
      chunk: rows, 1 or more.

    Raises:
      ValueError: a chunk below 1, or files of different lengths.
      OSError: a file that cannot be read.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be 1 or more, got {chunk}")
    total = check_rows(*(np.load(path, mmap_mode="r") for path in (inputs, targets)))

    def chunks():
        for start in range(0, total, chunk):
            # Mapped anew each time: the pages of a map that stays count as the process's memory.
            rows = slice(start, start + chunk)
            yield np.load(inputs, mmap_mode="r")[rows], np.load(targets, mmap_mode="r")[rows]

    return chunks()
