"""Ten digits on the lecture's 5 x 5 grid, drawn for this project: clean, or noisy and shifted.

Slides "Forward propagation" and "Feedforward networks" number the grid's pixels from 0 to 24, row
by row, and feed them to a network: 25-h-10.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxnet.data.types import Split

__all__ = ["IMAGE_SHAPE", "draw", "glyphs"]

IMAGE_SHAPE = (5, 5)

_MOST_SHIFT = 2

# Any two differ in at least five pixels, also when one of them is shifted by a pixel. When both are
# shifted, and each has lost a row and a column, they differ in at least two.
_DRAWING = """
.###.  ..#..  .###.  #####  #..#.  #####  ..##.  #####  .###.  .###.
#...#  .##..  #...#  ...#.  #..#.  #....  .#...  ....#  #...#  #...#
#...#  ..#..  ..##.  ..##.  #####  #####  ####.  ...#.  .###.  .####
#...#  ..#..  .#...  ....#  ...#.  ....#  #...#  ..#..  #...#  ...#.
.###.  .###.  #####  ####.  ...#.  #####  .###.  ..#..  .###.  .##..
"""
_ROWS = np.array([[pixel == "#" for pixel in row] for row in _DRAWING.split()])
_IMAGES = _ROWS.reshape(5, 10, 5).transpose(1, 0, 2)  # (digit, row, column)


def glyphs(dtype: DTypeLike | None = None) -> Split:
    """Returns the ten digits as drawn, from 0 to 9.

    Slide "Recall: vectorizing inputs", with samples as rows.

    Args:
      dtype: of inputs and targets; None means float32, or float64 under ``jax_enable_x64``.

    Returns:
      Inputs ``(10, 25)``, 0 or 1, and one-hot targets ``(10, 10)``.

    Example:
      >>> glyphs().inputs[1].reshape(IMAGE_SHAPE)[0].tolist()
      [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    return _encode(_IMAGES, np.arange(10), dtype)


def draw(
    key: jax.Array,
    count: int,
    *,
    noise: float = 0.0,
    shift: int = 0,
    dtype: DTypeLike | None = None,
) -> Split:
    """Draws digits at random, shifts each, then flips pixels.

    The same key gives the same digits, in every dtype. They are NumPy arrays, like all data.

    Args:
      key: a key of `jax.random`.
      count: how many, 1 or more.
      noise: probability that a pixel is flipped, in [0, 1).
      shift: largest move along either axis, 0 to 2 pixels; all moves are equally likely. Pixels
        that leave the grid are lost, and zeros come in.
      dtype: of inputs and targets; None means float32, or float64 under ``jax_enable_x64``.

    Returns:
      Inputs ``(count, 25)``, 0 or 1, and one-hot targets ``(count, 10)``.

    Raises:
      ValueError: a count, noise or shift outside its range.

    Example:
      >>> draw(jax.random.key(0), 7, noise=0.05, shift=1).inputs.shape
      (7, 25)
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    if not 0 <= noise < 1:
        raise ValueError(f"noise must be in [0, 1), got {noise}")
    if shift not in range(_MOST_SHIFT + 1):
        raise ValueError(f"shift must be 0, 1 or {_MOST_SHIFT}, got {shift}")
    # 32 bits, because 64 would draw other numbers under jax_enable_x64.
    drawn = _draw(key, count, np.float32(noise), np.int32(shift))
    images, labels = jax.device_get(drawn)
    return _encode(images, labels, dtype)


@functools.partial(jax.jit, static_argnums=1)
def _draw(key, count, noise, shift):
    label_key, shift_key, noise_key = jax.random.split(key, 3)
    labels = jax.random.randint(label_key, (count,), 0, len(_IMAGES), jnp.int32)
    shifts = jax.random.randint(shift_key, (count, 2), -shift, shift + 1, jnp.int32)
    margin = (_MOST_SHIFT, _MOST_SHIFT)
    padded = jnp.pad(_IMAGES, ((0, 0), margin, margin))

    def move(label, by):
        return jax.lax.dynamic_slice(padded[label], _MOST_SHIFT - by, IMAGE_SHAPE)

    images = jax.vmap(move)(labels, shifts)  # (count, row, column)
    return images ^ jax.random.bernoulli(noise_key, noise, images.shape), labels


def _encode(images: np.ndarray, labels: np.ndarray, dtype: DTypeLike | None) -> Split:
    dtype = jnp.result_type(float) if dtype is None else dtype
    targets = np.eye(len(_IMAGES), dtype=dtype)[labels]
    return Split(images.reshape(len(images), -1).astype(dtype), targets)
