"""Matrix products in a compute dtype, written so that XLA makes fast code of them.

The factors of a product are rounded to the compute dtype; sums are float32, or float64. All else
in the network has the dtype of the sums: in 16 bits a saturated output would lose its distance from
the target (in bfloat16, sigmoid(4) is off by a tenth of its distance from 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jax.typing import DTypeLike

from jaxnet.types import Params

__all__ = ["compute_dtype", "matmul", "sum_dtype", "transpose", "weight_gradient"]

# A weight gradient with at most so many outputs, of at least so many rows or inputs, is computed
# transposed; measured on two cores (results/benchmark/README.md, "few outputs").
_FEW_OUTPUTS, _LONG = 32, 512


def compute_dtype(params: Params, precision: DTypeLike | None) -> Any:
    """Returns the dtype that the factors of products are rounded to.

    Args:
      params: layers.
      precision: a floating-point dtype, no wider than the parameters'; None means theirs.

    Raises:
      TypeError: a dtype that is not floating-point, or wider than the parameters'.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnet.types import Layer
      >>> compute_dtype((Layer(jnp.ones((2, 1), jnp.float32)),), "bfloat16")
      dtype(bfloat16)
    """
    own = params[0].weight.dtype
    dtype = own if precision is None else jnp.dtype(precision)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"precision must be a floating-point dtype, got {dtype}")
    if jnp.finfo(dtype).bits > jnp.finfo(own).bits:
        raise TypeError(f"precision must be no wider than the parameters' {own}, got {dtype}")
    return dtype


def sum_dtype(dtype: DTypeLike) -> Any:
    """Returns the dtype of sums of products: float32 for 16-bit factors, otherwise their own.

    Example:
      >>> import jax.numpy as jnp
      >>> jnp.dtype(sum_dtype("bfloat16"))
      dtype('float32')
    """
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)


def matmul(left: jax.Array, right: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Returns ``left @ right``: factors rounded to a dtype, sums in `sum_dtype`.

    By default JAX rounds the factors of float32 products to 10 bits of mantissa on a GPU and to 7
    on a TPU. Here float32 means float32 on every device, unless `jax.default_matmul_precision` says
    otherwise.

    Args:
      left: ``(n, k)`` floating-point.
      right: ``(k, m)`` floating-point.
      dtype: the compute dtype.

    Returns:
      ``(n, m)`` in `sum_dtype`.

    Example:
      >>> import jax.numpy as jnp
      >>> matmul(jnp.ones((1, 3)), jnp.ones((3, 1)), "bfloat16")
      Array([[3.]], dtype=float32)
    """
    left, right = left.astype(dtype), right.astype(dtype)
    chosen = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    exact = jax.lax.Precision.HIGHEST if chosen is None else None
    return jnp.matmul(left, right, precision=exact, preferred_element_type=sum_dtype(dtype))


def transpose(matrix: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Returns the transpose, in a compute dtype, as `matmul` takes it fastest.

    Args:
      matrix: ``(n, m)`` floating-point.
      dtype: the compute dtype.

    Returns:
      ``(m, n)`` of that dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> transpose(jnp.ones((2, 3)), "bfloat16").shape
      (3, 2)
    """
    matrix = matrix.T.astype(dtype)
    if dtype != jnp.bfloat16:
        return matrix
    # XLA's fast bfloat16 matmul on CPU needs row-major factors. In other dtypes the copy costs more
    # than it gains.
    return jax.lax.platform_dependent(matrix, cpu=_row_major, default=lambda matrix: matrix)


def weight_gradient(below: jax.Array, delta: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Returns ``below.T @ delta``: the gradient in a layer's weight, summed over the batch.

    Slide "Vectorized weight updates": ``np.dot(dW3, L2.T)``, there of columns.

    Args:
      below: ``(batch, inputs)`` activations that enter the layer.
      delta: ``(batch, outputs)`` gradient in the layer's logits.
      dtype: the compute dtype.

    Returns:
      ``(inputs, outputs)`` in `sum_dtype`.

    Example:
      >>> import jax.numpy as jnp
      >>> weight_gradient(jnp.ones((5, 2)), jnp.ones((5, 1)), "float32").tolist()
      [[5.0], [5.0]]
    """
    few, long = delta.shape[1] <= _FEW_OUTPUTS, max(below.shape) >= _LONG
    if not (few and long) or jnp.finfo(dtype).bits < 32:
        return matmul(transpose(below, dtype), delta, dtype)
    # A long product with few columns is slow on CPU, one with few rows is not. The barrier keeps
    # XLA from turning it back.
    return jax.lax.optimization_barrier(matmul(delta.T, below, dtype)).T


def _row_major(matrix: jax.Array) -> jax.Array:
    return with_layout_constraint(matrix, Layout(major_to_minor=(0, 1)))
