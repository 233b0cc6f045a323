"""The IDX format of the MNIST archives: zero, zero, type, rank, shape, uint8 data; gzipped."""

import gzip
import math
import os
import struct
import zlib

import numpy as np

from jaxnet import text
from jaxnet.data.types import DataError

__all__ = ["read"]

_UINT8 = 0x08


def read(path: str | os.PathLike, shape: tuple[int, ...]) -> np.ndarray:
    """Reads a gzipped IDX file of uint8.

    Never reads more than ``shape`` needs, whatever the file claims.

    Args:
      path: of the file.
      shape: which the file must have.

    Raises:
      DataError: a file that is damaged, or of another dtype or shape.
      OSError: a file that cannot be opened.

    Example:
      >>> import tempfile
      >>> path = tempfile.mktemp()
      >>> with gzip.open(path, "wb") as file:
      ...     _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 10, 20, 30]))
      >>> read(path, (3,)).tolist()
      [10, 20, 30]
    """
    expected = struct.pack(f">HBB{len(shape)}I", 0, _UINT8, len(shape), *shape)
    size = math.prod(shape)
    with open(path, "rb") as opened, gzip.GzipFile(fileobj=opened) as file:
        try:
            header, content = file.read(len(expected)), file.read(size + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged: {text.first_line(error)}") from error
    if header != expected or len(content) != size:
        raise DataError(f"{path} is not an IDX file of uint8 and shape {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape)
