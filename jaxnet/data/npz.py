"""The user's own data: an `.npz` file of images and labels."""

import os
from pathlib import Path

import numpy as np

from jaxnet import files, text
from jaxnet.data.types import DataError, Examples

__all__ = ["MAX_CLASSES", "read"]

MAX_CLASSES = 10_000  # targets are dense, ``(n, classes)``

_REQUIRED = ("images", "labels")
_OPTIONAL = ("test_images", "test_labels")


def read(path: str | os.PathLike) -> tuple[Examples, Examples | None]:
    """Reads an `.npz` file of images and labels, and checks it; see `jaxnet.data.load`.

    Other arrays in the file are not read.

    Args:
      path: of the file.

    Returns:
      The examples to train on, and the test set if the file has one.

    Raises:
      DataError: a file that is missing, damaged or of another form; the message names it.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp(), "own.npz")
      >>> np.savez(path, images=np.zeros((2, 3, 3), np.uint8), labels=np.arange(2))
      >>> train, test = read(path)
      >>> train.images.shape, test
      ((2, 3, 3), None)
    """
    path = Path(path)
    try:
        names = files.npz_names(path)
        missing = [name for name in _REQUIRED if name not in names]
        if missing or ("test_images" in names) != ("test_labels" in names):
            listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
            raise DataError(
                f"{path} must hold images and labels, and may hold test_images and test_labels; "
                f"it holds {listed or 'nothing'}"
            )
        arrays = files.read_npz(path, _REQUIRED + _OPTIONAL)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except DataError:
        raise
    except (OSError, ValueError) as error:
        message = text.first_line(error)
        message = message if str(path) in message else f"{path}: {message}"
        raise DataError(message) from error

    train = Examples(arrays["images"], arrays["labels"])
    _check(path, train, "")
    classes = _count_classes(path, train.labels)
    train = Examples(train.images, train.labels.astype(np.int64))
    if "test_images" not in arrays:
        return train, None
    test = Examples(arrays["test_images"], arrays["test_labels"])
    _check(path, test, "test_")
    if test.images.shape[1:] != train.images.shape[1:]:
        raise DataError(
            f"{path}: test_images must be of the images' shape {train.images.shape[1:]}, "
            f"got {test.images.shape[1:]}"
        )
    if (largest := int(test.labels.max())) >= classes:
        raise DataError(
            f"{path}: test_labels must be below {classes}, the number of classes in labels, "
            f"got {largest}"
        )
    return train, Examples(test.images, test.labels.astype(np.int64))


def _count_classes(path: Path, labels: np.ndarray) -> int:
    # Nothing is sized by the largest label: it may be 2**64 - 1.
    present = np.unique(labels)
    gaps = np.flatnonzero(present != np.arange(len(present)).astype(present.dtype))
    if len(gaps):
        raise DataError(
            f"{path}: labels must run from 0 and leave no class out; the largest is "
            f"{present[-1]}, and {gaps[0]} does not occur"
        )
    if len(present) < 2:
        raise DataError(f"{path}: labels must tell two classes apart at least, got only 0")
    if len(present) > MAX_CLASSES:
        raise DataError(
            f"{path}: labels must have at most {MAX_CLASSES:,} classes, got {len(present):,}"
        )
    return len(present)


def _check(path: Path, examples: Examples, prefix: str) -> None:
    def fail(field: str, expected: str, got: object):
        raise DataError(f"{path}: {prefix}{field} must be {expected}, got {got}")

    images, labels = examples
    if images.ndim not in (2, 3) or 0 in images.shape:
        fail("images", "(n, height, width) or (n, pixels)", f"shape {images.shape}")
    if labels.shape != images.shape[:1]:
        fail("labels", f"of shape ({len(images)},), one for each image", f"shape {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        fail("labels", "integers", _kind(labels))
    if labels.min() < 0:
        fail("labels", "0 or larger", labels.min())
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            fail("images", "uint8, or floating-point in [0, 1]", _kind(images))
        if wrong := np.count_nonzero(~np.isfinite(images)):
            fail("images", "finite", f"{wrong} NaN or infinite")
        if images.min() < 0 or images.max() > 1:
            low, high = (str(value).removesuffix(".0") for value in (images.min(), images.max()))
            fail("images", "in [0, 1]", f"[{low}, {high}]")


def _kind(array: np.ndarray) -> str:
    return "a structured dtype" if array.dtype.names else str(array.dtype)
