import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.lecture import neuron, neurons


def test_penalties_are_the_slides():
    assert neuron.penalties() == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]


def test_chain_is_jax_grads():
    with jax.enable_x64(True):
        w, x = jnp.array([-3.0, 2.0, -3.0]), jnp.array([1.0, -1.0, -2.0])
        right = jax.grad(lambda w: (jax.nn.sigmoid(x @ w) - 1) ** 2)(w)
        np.testing.assert_allclose(neurons.chain(w, x, 1.0), right, rtol=1e-12)
