"""Equinox: an eqx.Module of eqx.nn.Linear layers, vectorised by jax.vmap, and optax."""

# pyright: reportMissingImports=false

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from peers import Program, Work
from peers.optax_ import transformation

VARIANTS = {
    "equinox": "eqx.Module under jax.vmap, an eqx.filter_jit of a step with optax, a Python loop.",
}


class MLP(eqx.Module):
    """The network, ``(inputs,)`` to ``(outputs,)``."""

    layers: list[eqx.nn.Linear]

    def __init__(self, work: Work, *, key):
        keys = jax.random.split(key, len(work.params))
        self.layers = []
        for (fan_in, fan_out), (weight, bias), k in zip(
            pairwise(work.sizes), work.params, keys, strict=True
        ):
            layer = eqx.nn.Linear(fan_in, fan_out, use_bias=bias is not None, key=k)
            arrays = [jnp.asarray(weight.T)] + ([] if bias is None else [jnp.asarray(bias)])
            self.layers.append(eqx.tree_at(jax.tree.leaves, layer, arrays))

    def __call__(self, inputs):
        """Returns the outputs of one sample."""
        for layer in self.layers:
            inputs = jax.nn.sigmoid(layer(inputs))
        return inputs


@eqx.filter_jit
def forward(model, inputs):
    """Returns the network's outputs, ``(batch, outputs)``."""
    return jax.vmap(model)(inputs)


def mean_squared_error(model, inputs, targets):
    """Returns the loss of a minibatch."""
    return jnp.mean(jnp.sum((forward(model, inputs) - targets) ** 2, axis=1))


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    inputs = work.images * np.float32(1 / 255)
    targets = np.eye(work.sizes[-1], dtype=np.float32)[work.labels]
    if work.batch_size == len(inputs):
        inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    rng = np.random.default_rng(work.seed)
    optimizer = transformation(work)
    model = MLP(work, key=jax.random.key(work.seed))
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def make_step(model, state, total, inputs, targets):
        loss, gradient = eqx.filter_value_and_grad(mean_squared_error)(model, inputs, targets)
        updates, state = optimizer.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state, total + loss

    def batches():
        if work.batch_size == len(inputs):
            return [slice(None)]
        order = rng.permutation(len(inputs))[: work.steps * work.batch_size]
        return order.reshape(work.steps, -1)

    def epoch():
        nonlocal model, state
        total = jnp.zeros(())
        for batch in batches():
            model, state, total = make_step(model, state, total, inputs[batch], targets[batch])
        jax.block_until_ready(eqx.filter(model, eqx.is_array))
        return float(total) / work.steps

    def predict(images):
        return np.asarray(forward(model, images.astype(np.float32) / 255).argmax(axis=1))

    return Program(epoch, predict)
