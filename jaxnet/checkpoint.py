"""Parameters on disk: an `.npz` file that holds each array under its path in the pytree."""

import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import files, mlp
from jaxnet.types import Layer, Params

__all__ = ["load", "save"]

_STORED = (np.float16, np.float32, np.float64)  # what the format knows


def save(path: str | os.PathLike, params: Params) -> None:
    """Writes parameters to an `.npz` file, whole or not at all.

    The names are ``[0].weight``, ``[0].bias``, ``[1].weight`` and so on. Dtypes that the format
    does not know, bfloat16 and those of 8 bits, are stored as float32.

    Args:
      path: of the file; must end in ``.npz``.
      params: layers.

    Raises:
      ValueError: another ending, or layers that do not fit each other.
      TypeError: what is not a tuple of layers.
      OSError: a file that cannot be written.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "params.npz")
      >>> save(path, mlp.init(jax.random.key(0), (3, 2, 1)))
      >>> mlp.sizes(load(path))
      (3, 2, 1)
    """
    mlp.check_params(params)
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    arrays = {}
    for place, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        arrays[jax.tree_util.keystr(place)] = (
            array if array.dtype in _STORED else array.astype(np.float32)
        )
    with files.replacing(path) as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike) -> Params:
    """Reads the parameters that `save` wrote.

    float64 parameters become float32 unless ``jax_enable_x64`` is on, as everywhere in JAX.

    Args:
      path: of an `.npz` file.

    Returns:
      Layers that fit each other, of finite numbers.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that does not hold a network's parameters; the message names it.

    Example:
      >>> load("nothing.npz")
      Traceback (most recent call last):
      FileNotFoundError: ...
    """
    names = files.npz_names(path)
    matches = [re.fullmatch(r"\[(0|[1-9][0-9]*)\]\.(weight|bias)", name) for name in names]
    if not all(matches) or not matches:
        raise ValueError(
            f"{path} must hold arrays named [0].weight, [0].bias, ..., got {_listed(names)}"
        )
    # Counted by what is there: a number in a name must not size anything.
    depth = len({match[1] for match in matches if match})
    if missing := [i for i in range(depth) if f"[{i}].weight" not in names]:
        raise ValueError(f"{path} lacks [{missing[0]}].weight, got {_listed(names)}")
    arrays = {name: _as_parameter(path, name, x) for name, x in files.read_npz(path).items()}
    params = tuple(Layer(arrays[f"[{i}].weight"], arrays.get(f"[{i}].bias")) for i in range(depth))
    try:
        mlp.check_params(params)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return jax.tree.map(jnp.asarray, params)


def _as_parameter(path: str | os.PathLike, name: str, array: np.ndarray) -> np.ndarray:
    dtype = array.dtype.newbyteorder("=")
    if dtype not in _STORED:
        raise ValueError(f"{path}: {name} must be float16, float32 or float64, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {name} must be finite, got NaN or infinity")
    loaded = jax.dtypes.canonicalize_dtype(dtype)  # what JAX makes of it
    if array.size and np.abs(array).max() > np.finfo(loaded).max:
        raise ValueError(f"{path}: {name} must fit {loaded}, got {np.abs(array).max()}")
    return array.astype(loaded)


def _listed(names: list[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
