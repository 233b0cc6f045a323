"""Data parallelism: the rows of a batch sharded over devices, gradients averaged."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnet.train.microbatch import check_rows
from jaxnet.types import Devices, Params, ValueAndGrad

__all__ = ["choose_devices", "replicate", "shard", "shard_rows"]

_AXIS = "rows"  # of the mesh of devices
_WORTHWHILE = 1_000  # rows a device; with fewer, adding up gradients takes longer than it saves


def shard(value_and_grad: ValueAndGrad, devices: Devices) -> ValueAndGrad:
    """Returns a gradient function that computes a shard of the rows on each device.

    The result is the same up to rounding. The cores of a CPU can be such devices
    (``jax_num_cpu_devices``): each then computes its rows from the first layer to the last, where
    all would otherwise exchange parts of every product.

    Args:
      value_and_grad: of a loss that is a mean over the batch.
      devices: one or more, as many as divide the batch. Parameters are on all of them.

    Raises:
      ValueError: no devices; when it is called, rows that they do not divide.

    Example:
      >>> from jaxnet import backprop, mlp
      >>> params = mlp.init(jax.random.key(0), (3, 1))
      >>> gradient = shard(backprop.value_and_grad, jax.devices()[:1])
      >>> gradient(params, jax.numpy.ones((4, 3)), jax.numpy.ones((4, 1)))[0].shape
      ()
    """
    _check_devices(devices)
    if len(devices) == 1:
        return value_and_grad  # nothing to average, and XLA would do so in every step

    def mean(params, inputs, targets):
        return jax.lax.pmean(value_and_grad(params, inputs, targets), _AXIS)

    rows, everywhere = PartitionSpec(_AXIS), PartitionSpec()
    # Unchecked, because jax.grad inside would otherwise sum over devices what is averaged here.
    sharded = jax.shard_map(
        mean,
        mesh=_mesh(devices),
        in_specs=(everywhere, rows, rows),
        out_specs=everywhere,
        check_vma=False,
    )

    def checked(params: Params, inputs: Any, targets: Any) -> tuple[jax.Array, Params]:
        total = check_rows(inputs, targets)
        if total % len(devices):
            raise ValueError(
                f"devices must divide the {total} rows of a batch, got {len(devices)} of them"
            )
        return sharded(params, inputs, targets)

    return checked


def choose_devices(devices: Devices, batch: int) -> Devices:
    """Returns the most devices that divide a batch and get 1,000 rows each; at least one.

    Args:
      devices: one or more.
      batch: rows, 1 or more.

    Raises:
      ValueError: no devices, or no rows.

    Example:
      >>> len(choose_devices(jax.devices(), 100))
      1
    """
    _check_devices(devices)
    if batch < 1:
        raise ValueError(f"batch must be 1 or more, got {batch}")
    most = min(len(devices), max(1, batch // _WORTHWHILE))
    return devices[: next(n for n in range(most, 0, -1) if batch % n == 0)]


def shard_rows(tree: Any, devices: Devices) -> Any:
    """Returns arrays whose rows are sharded over devices.

    Args:
      tree: a pytree of arrays, ``(rows, ...)``.
      devices: as many as divide the rows.

    Example:
      >>> shard_rows(np.ones((4, 3)), jax.devices()[:1]).shape
      (4, 3)
    """
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec(_AXIS)))


def replicate(tree: Any, devices: Devices) -> Any:
    """Returns arrays of which every device has a copy.

    Example:
      >>> replicate(np.ones((4, 3)), jax.devices()[:1]).shape
      (4, 3)
    """
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec()))


def _check_devices(devices: Devices) -> None:
    if not devices:
        raise ValueError("devices must be one or more, got none")


def _mesh(devices: Devices) -> Mesh:
    return Mesh(np.asarray(devices), (_AXIS,))
