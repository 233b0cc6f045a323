"""Functions that several tests differentiate."""

import jax
import jax.numpy as jnp

DTYPE = jnp.result_type(float)


EPSILON = float(jnp.finfo(DTYPE).eps)


def product(x, y):
    """The lecture's f(x, y) = xy."""
    return x * y


def smooth(tree):
    return sum(jnp.sum(jnp.sin(leaf) * jnp.exp(leaf / 2)) for leaf in jax.tree.leaves(tree))
