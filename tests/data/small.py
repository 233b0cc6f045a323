"""A dataset of the MNIST family's form that is prepared in no time: 60 and 20 images."""

import gzip
import hashlib
import struct

import numpy as np
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size

from jaxnet.data import mnist

EXAMPLES = {"train": 60, "test": 20}


def archives():
    """Returns the content of the four archives."""
    rng = np.random.default_rng(0)
    arrays = []
    for count in EXAMPLES.values():
        arrays.append(rng.integers(0, 256, (count, 28, 28), np.uint8))
        arrays.append(np.arange(count).astype(np.uint8) % 10)
    return {
        name: gzip.compress(
            struct.pack(f">HBB{x.ndim}I", 0, 8, x.ndim, *x.shape) + x.tobytes(), mtime=0
        )
        for name, x in zip(mnist.ARCHIVES, arrays, strict=True)
    }


def install(address="http://127.0.0.1:9/"):
    """Has `mnist` mean this dataset, under an address where by default nobody answers."""
    infos = {
        address + name: UrlInfo(Size(len(content)), hashlib.sha256(content).hexdigest(), name)
        for name, content in archives().items()
    }
    mnist._EXAMPLES = EXAMPLES
    mnist._MIRRORS = {"mnist": address}
    checksums.get_all_url_infos = lambda: infos


def write(folder):
    folder.mkdir()
    for name, content in archives().items():
        (folder / name).write_bytes(content)
    return folder
