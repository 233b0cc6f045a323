"""The 1,797 digits of 8 x 8 pixels that come with scikit-learn."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from jaxnet import text
from jaxnet.data.types import DataError, Examples

__all__ = ["read"]


def read() -> Examples:
    """Reads the digits, in the order of `sklearn.datasets.load_digits`.

    Returns:
      Images ``(1797, 8, 8)`` float32 in [0, 1], and labels.

    Raises:
      DataError: scikit-learn is not installed, or its file cannot be read.

    Example:
      >>> read().images.shape
      (1797, 8, 8)
    """
    # Importing `sklearn.datasets` takes longer than a short run: the file is read without it.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("digits come with scikit-learn, which is not installed")
    path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    try:
        with gzip.open(path) as file:
            table = np.loadtxt(file, np.uint8, delimiter=",")  # 64 pixels from 0 to 16, the label
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {text.first_line(error)}") from error
    images = table[:, :-1].reshape(-1, 8, 8)
    return Examples((images / 16).astype(np.float32), table[:, -1].astype(np.int64))
