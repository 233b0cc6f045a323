"""Labelled images as arrays: inputs in [0, 1], one-hot targets, splits that never change.

`load` is the door. Each source has a module that returns `types.Examples` and that `load` calls:
`digits`, `mnist`, `npz`. `glyphs` draws the lecture's 5 x 5 digits; `pixels` makes floats of uint8.
A new source is a module beside these and a line in `load.load`.
"""

from jaxnet.data.load import NAMES, load
from jaxnet.data.mnist import ARCHIVES
from jaxnet.data.types import DataError, Dataset, Split

__all__ = ["ARCHIVES", "NAMES", "DataError", "Dataset", "Split", "load"]
