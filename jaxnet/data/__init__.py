"""Labelled images as arrays: inputs in [0, 1], one-hot targets, fixed splits."""

from jaxnet.data.load import ARCHIVES, NAMES, DataError, Dataset, Split, load

__all__ = ["ARCHIVES", "NAMES", "DataError", "Dataset", "Split", "load"]
