"""The door to the data: which names there are, how data is split, how it is encoded."""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnet import files
from jaxnet.data import digits, mnist, npz
from jaxnet.data.types import DataError, Dataset, Examples, Split

__all__ = ["NAMES", "load"]

NAMES = ("digits", *mnist.NAMES)

_SPLIT_SEED = 0  # of the splits that the data does not come with; the same in every run
_TEST_SHARE = 0.2  # of data that has no test set of its own
_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8")


def load(
    name: str | os.PathLike,
    *,
    validation_split: float = 0.1,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    dtype: DTypeLike | None = None,
) -> Dataset:
    """Loads labelled images, split into training, validation and test set.

    ``load("digits")`` needs no network, ``load("mnist")`` downloads the data the first time, and
    ``load("mine.npz")`` reads your own. Inputs are rows of pixels in [0, 1], targets are one-hot.
    The splits are the same in every run: they depend on the dataset and on ``validation_split``.

    Args:
      name: ``"digits"`` (1,797 images of 8 x 8), ``"mnist"`` or ``"fashion_mnist"`` (70,000 of
        28 x 28), or the path of an ``.npz`` file: ``images``, ``(n, height, width)`` or
        ``(n, pixels)``, uint8 or floating-point in [0, 1]; ``labels``, ``(n,)`` integers from 0
        with every class present, 10,000 classes at most; and, if it has a test set,
        ``test_images`` and ``test_labels``.
      validation_split: share of the training set that is held out, in [0, 1).
      data_dir: where prepared data is kept; by default ``$JAXNET_DATA_DIR``, or ``jaxnet`` in the
        user's cache folder.
      manual_dir: folder that holds the four archives of MNIST, already downloaded, or has them in
        a folder of the dataset's name; by default ``$JAXNET_MANUAL_DIR``, or else they are
        downloaded.
      dtype: of inputs and targets: float16, bfloat16, float32, float64 or uint8; None means
        float32, or float64 under ``jax_enable_x64``. With uint8, images that are stored as uint8
        stay so (a quarter of float32's memory); float images become what None means.

    Raises:
      DataError: an unknown name; archives or files that are missing, damaged, of another form or
        too large for the memory of this machine; a folder that is ``""``.
      ValueError: ``validation_split`` outside [0, 1), or another ``dtype``.
      TypeError: a ``name`` that is not a string or a path.

    Example:
      >>> digits = load("digits", dtype="float32")
      >>> digits.train.inputs.shape, digits.train.targets.shape
      ((1294, 64), (1294, 10))
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name must be a string or a path, got {type(name).__name__}")
    if not 0 <= validation_split < 1:
        raise ValueError(f"validation_split must be in [0, 1), got {validation_split}")
    kind = _check_dtype(dtype)
    for argument, folder in (("data_dir", data_dir), ("manual_dir", manual_dir)):
        if folder is not None and not os.fspath(folder):
            raise DataError(f"{argument} must name a folder, got ''")
    path = Path(name)
    if path.suffix == ".npz":
        train, test = npz.read(path)
    elif name == "digits":
        train, test = digits.read(), None
    elif name in mnist.NAMES:
        train, test = mnist.read(str(name), data_dir=data_dir, manual_dir=manual_dir)
    else:
        raise DataError(f"dataset must be one of {', '.join(NAMES)} or a .npz file, got '{name}'")

    classes = int(train.labels.max()) + 1
    _check_memory(path, train, test, classes, kind)
    if test is None:
        train, test = _hold_out(train, _TEST_SHARE, "test")
    train, validation = _hold_out(train, validation_split, "validation")
    height, width = _image_shape(train.images)
    return Dataset(
        name=path.stem,
        train=_encode(train, classes, kind),
        validation=_encode(validation, classes, kind) if len(validation.labels) else None,
        test=_encode(test, classes, kind),
        image_shape=(height, width),
    )


def _check_dtype(dtype: DTypeLike | None) -> Any:
    if dtype is None:
        return jnp.result_type(float)
    try:
        known = jnp.dtype(dtype)
    except TypeError:
        known = None
    if known is None or known.name not in _DTYPES or not known.isnative:
        raise ValueError(f"dtype must be {', '.join(_DTYPES[:-1])} or uint8, got {dtype!r}")
    return known


def _check_memory(
    path: Path, train: Examples, test: Examples | None, classes: int, dtype: Any
) -> None:
    needed = sum(
        (part.images.size + len(part.labels) * classes) * dtype.itemsize
        for part in (train, test)
        if part is not None
    )
    if needed > (available := files.available_memory()):
        raise DataError(
            f"{path}: {len(train.labels):,} examples of {classes:,} classes need "
            f"{needed / 1e9:.1f} GB as {dtype.name}, and {available / 1e9:.1f} GB are free"
        )


def _hold_out(examples: Examples, share: float, purpose: str) -> tuple[Examples, Examples]:
    total = len(examples.labels)
    held = round(share * total)
    if share and not 0 < held < total:
        raise DataError(f"{total} examples are too few to hold out {share:g} of them for {purpose}")
    order = np.random.default_rng(_SPLIT_SEED).permutation(total)
    kept = np.sort(order[held:]), np.sort(order[:held])
    first, second = (Examples(examples.images[rows], examples.labels[rows]) for rows in kept)
    return first, second


def _encode(examples: Examples, classes: int, dtype: Any) -> Split:
    images = examples.images.reshape(len(examples.images), -1)
    if dtype == np.uint8 != images.dtype:
        dtype = jnp.result_type(float)
    inputs = images.astype(dtype, copy=False)
    if images.dtype == np.uint8 != dtype:
        inputs /= 255
    targets = np.zeros((len(images), classes), dtype)
    targets[np.arange(len(images)), examples.labels] = 1
    return Split(inputs, targets)


def _image_shape(images: np.ndarray) -> tuple[int, int]:
    if images.ndim == 3:
        return images.shape[1:]
    side = round(images.shape[1] ** 0.5)
    return (side, side) if side * side == images.shape[1] else (1, images.shape[1])
