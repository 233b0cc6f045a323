"""Optimizers of the lecture, from random search to L-BFGS, with one interface.

As in optax, an optimizer is a pair of pure functions. It minimises any scalar function of a pytree.
Searches call a function that returns the value; descents call one that returns the value and the
gradient::

    optimizer = optimizers.coordinate_descent()
    params, history = optimizers.minimize(optimizer, loss, params, x, t, key=key, steps=100)

    optimizer = optimizers.gradient_descent(0.1)
    optimizers.minimize(optimizer, jax.value_and_grad(loss), params, x, t, key=key, steps=100)
    optimizers.minimize(optimizer, optimizers.numerical(loss), params, x, t, key=key, steps=100)
"""

from jaxnet.optimizers.core import History, Optimizer, State, minimize
from jaxnet.optimizers.descents import from_optax, gradient_descent, losses_per_call, numerical
from jaxnet.optimizers.searches import coordinate_descent, random_search

__all__ = [
    "History",
    "Optimizer",
    "State",
    "coordinate_descent",
    "from_optax",
    "gradient_descent",
    "losses_per_call",
    "minimize",
    "numerical",
    "random_search",
]
