"""An estimate of memory, so that a network that cannot fit is refused before anything is made."""

import itertools
from collections.abc import Sequence

import jax

from jaxnet import files

__all__ = ["available_bytes", "check_memory", "required_bytes"]

# Arrays of the size of the parameters that a step holds: parameters before and after, gradient,
# update, Adam's two moments before and after. An audit holds some in float64: the parameters, a
# direction, the point moved along it, two gradients.
_STEP_COPIES, _AUDIT_COPIES = 8, 6


def required_bytes(sizes: Sequence[int], *, rows: int, audited: bool, itemsize: int) -> int:
    """Estimates the least memory that a run needs beside its data.

    Args:
      sizes: widths from the inputs to the outputs.
      rows: of a microbatch.
      audited: whether the gradient is audited, too.
      itemsize: bytes of a parameter.

    Example:
      >>> required_bytes((784, 256, 128, 10), rows=64, audited=False, itemsize=4) // 10**6
      8
    """
    parameters = sum((rows + 1) * outputs for rows, outputs in itertools.pairwise(sizes))
    activations = 2 * min(rows, 2_000) * sum(sizes)
    copies = _STEP_COPIES * itemsize + (_AUDIT_COPIES * 8 if audited else 0)
    return parameters * copies + activations * itemsize


def available_bytes() -> int | None:
    """Returns the memory of JAX's default device, or None where nobody tells.

    Of a CPU it is what is free, or what the control group of the process may have.

    Example:
      >>> available_bytes() is None or available_bytes() > 0
      True
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return files.available_memory()
    return (device.memory_stats() or {}).get("bytes_limit")


def check_memory(sizes: Sequence[int], *, rows: int, audited: bool, itemsize: int) -> None:
    """Refuses a network that does not fit into memory.

    Arguments are those of `required_bytes`.

    Raises:
      ValueError: it needs more than there is.

    Example:
      >>> check_memory((784, 10**9, 10), rows=64, audited=False, itemsize=4)
      Traceback (most recent call last):
      ValueError: argument --hidden: a network 784-1000000000-10 needs some ...
    """
    needed = required_bytes(sizes, rows=rows, audited=audited, itemsize=itemsize)
    available = available_bytes()
    if available is not None and needed > available:
        raise ValueError(
            f"argument --hidden: a network {'-'.join(map(str, sizes))} needs some "
            f"{needed / 1e9:,.1f} GB, and there are {available / 1e9:,.1f} GB"
        )
