import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import mlp

from .common import DTYPE


@pytest.fixture
def tree():
    key = jax.random.key(3)
    return {
        "matrix": jax.random.normal(key, (3, 4), DTYPE),
        "scalar": jnp.asarray(0.7, DTYPE),
        "pair": (jnp.array([10.0, -20.0], DTYPE), jnp.array([0.0], DTYPE)),
    }


@pytest.fixture(scope="module")
def problem(digits):
    """A float64 network of which two layers are square; use it under `jax.enable_x64`."""
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(0), (64, 16, 16, 10))
        arrays = (jnp.asarray(np.asarray(array[:40], np.float64)) for array in digits.train)
        return params, *arrays
