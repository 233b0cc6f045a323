"""Flax: an nnx.Module of nnx.Linear layers and an nnx.Optimizer."""

# pyright: reportMissingImports=false

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from flax import nnx

from peers import Program, Work
from peers.optax_ import transformation

VARIANTS = {
    "flax": "nnx.Module and nnx.Optimizer, an nnx.jit of a step, cached, in a Python loop.",
}


class MLP(nnx.Module):
    """The network, ``(batch, inputs)`` to ``(batch, outputs)``."""

    def __init__(self, work: Work, *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, use_bias=bias is not None, rngs=rngs)
            for (fan_in, fan_out), (_, bias) in zip(pairwise(work.sizes), work.params, strict=True)
        )
        for layer, (weight, bias) in zip(self.layers, work.params, strict=True):
            layer.kernel[...] = jnp.asarray(weight)
            if layer.bias is not None:
                layer.bias[...] = jnp.asarray(bias)

    def __call__(self, inputs):
        """Returns the outputs."""
        for layer in self.layers:
            inputs = nnx.sigmoid(layer(inputs))
        return inputs


def mean_squared_error(model, inputs, targets):
    """Returns the loss of a minibatch."""
    return jnp.mean(jnp.sum((model(inputs) - targets) ** 2, axis=1))


@nnx.jit
def train_step(model, optimizer, total, inputs, targets):
    """Updates the model in place and returns the sum of losses with that of before the update."""
    loss, gradient = nnx.value_and_grad(mean_squared_error)(model, inputs, targets)
    optimizer.update(model, gradient)
    return total + loss


@nnx.jit
def forward(model, inputs):
    """Returns the network's outputs."""
    return model(inputs)


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    inputs = work.images * np.float32(1 / 255)
    targets = np.eye(work.sizes[-1], dtype=np.float32)[work.labels]
    if work.batch_size == len(inputs):
        inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    rng = np.random.default_rng(work.seed)
    transform = transformation(work)
    model = MLP(work, rngs=nnx.Rngs(work.seed))
    optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
    # Flax's guide to performance: it spares each step a walk through both objects.
    step = nnx.cached_partial(train_step, model, optimizer)

    def epoch():
        if work.batch_size == len(inputs):
            return float(step(0.0, inputs, targets))
        order = rng.permutation(len(inputs))[: work.steps * work.batch_size]
        batches = order.reshape(work.steps, -1)
        total = 0.0
        for batch in batches:
            total = step(total, inputs[batch], targets[batch])
        return float(total) / work.steps

    def predict(images):
        return np.asarray(forward(model, images.astype(np.float32) / 255).argmax(axis=1))

    return Program(epoch, predict)
