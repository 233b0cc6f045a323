"""Numbers as JSON records hold them."""

from collections.abc import Iterable

import numpy as np

__all__ = ["finite"]


def finite(values: Iterable[float | str | None]) -> np.ndarray:
    """Returns the numbers of a JSON record as float64, with NaN in place of all that is not finite.

    Pictures leave NaN out. JSON has no NaN and no infinity: records hold the strings ``"nan"``,
    ``"inf"`` and ``"-inf"`` (see `jaxnet.text.plain`), older ones null.

    Args:
      values: numbers, their strings, or None.

    Raises:
      ValueError: a string that is no number.
      TypeError: a value that is neither a number, a string nor None.

    Example:
      >>> finite([0.5, "inf", None])
      array([0.5, nan, nan])
    """
    array = np.array([np.nan if value is None else float(value) for value in values], float)
    return np.where(np.isfinite(array), array, np.nan)
