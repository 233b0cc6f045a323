"""The machine's best rates of matrix products and of reading memory."""

import time

import jax
import jax.numpy as jnp
import numpy as np

VARIANTS = {
    "matmul": "The best rate of float32 products, GFLOP/s, as JAX rounds their factors.",
    "matmul-bfloat16": "The best rate of bfloat16 products, summed in float32, GFLOP/s.",
    "bandwidth": "The rate at which a sum reads memory, GB/s.",
}
_SHAPES = ((2000, 784, 256), (4000, 784, 256), (2048, 2048, 2048), (4000, 1024, 1024))
_LARGE = (8192, 8192, 8192)  # large enough that a GPU does not wait for the host
_REPEATS = 5


def measure(variant: str) -> float:
    """Returns the best rate of a few tries."""
    is_on_cpu = jax.default_backend() == "cpu"
    if variant == "bandwidth":
        array = jnp.ones(2**27 if is_on_cpu else 2**30, jnp.float32)  # half a gigabyte, or four
        return array.nbytes / _least_seconds(_sum, array) / 1e9
    dtype = jnp.bfloat16 if variant == "matmul-bfloat16" else jnp.float32
    rates = []
    for rows, inner, columns in _SHAPES if is_on_cpu else (*_SHAPES, _LARGE):
        left, right = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
        rates.append(2 * rows * inner * columns / _least_seconds(_multiply, left, right) / 1e9)
    return float(np.max(rates))


@jax.jit
def _multiply(left, right):
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


@jax.jit
def _sum(array):
    return jnp.sum(array)


def _least_seconds(function, *args) -> float:
    function(*args).block_until_ready()
    found = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        function(*args).block_until_ready()
        found.append(time.perf_counter() - start)
    return min(found)
