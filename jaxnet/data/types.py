"""The form of the data: splits of inputs and one-hot targets, and the error for all others."""

from typing import NamedTuple

import numpy as np

__all__ = ["DataError", "Dataset", "Examples", "Split"]


class DataError(ValueError):
    """Data that is missing, damaged or not of the form that was asked for."""


class Split(NamedTuple):
    """Examples as arrays, a row each.

    Attributes:
      inputs: ``(n, pixels)`` floating-point in [0, 1], or uint8, where 255 stands for 1.
      targets: ``(n, classes)`` one-hot, of the same dtype.

    Example:
      >>> Split(np.zeros((2, 4)), np.eye(2)).labels.tolist()
      [0, 1]
    """

    inputs: np.ndarray
    targets: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The class of each example, ``(n,)`` integers."""
        return self.targets.argmax(axis=1)


class Dataset(NamedTuple):
    """Data split for training, for choosing hyperparameters and for one final test.

    Attributes:
      name: ``"mnist"``, say, or the stem of the user's file.
      train: the examples to train on.
      validation: held out of the training set; None if ``validation_split`` is 0.
      test: the dataset's own test set, or a fifth of the data, the same in every run.
      image_shape: ``(height, width)`` of an image; height * width = pixels.

    Example:
      >>> split = Split(np.zeros((2, 4)), np.eye(2))
      >>> Dataset("mine", split, None, split, (2, 2)).train.inputs.shape
      (2, 4)
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    image_shape: tuple[int, int]


class Examples(NamedTuple):
    """What the readers of each format return, before it is split and encoded.

    Attributes:
      images: ``(n, height, width)`` or ``(n, pixels)``; uint8, or floating-point in [0, 1].
      labels: ``(n,)`` integers from 0.

    Example:
      >>> Examples(np.zeros((1, 2, 2), np.uint8), np.array([7])).labels.tolist()
      [7]
    """

    images: np.ndarray
    labels: np.ndarray
