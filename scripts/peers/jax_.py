"""JAX alone: functions of a list of layers, one compiled update a minibatch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from peers import Program, Work
from peers.optax_ import transformation

VARIANTS = {
    "jax": "jax.value_and_grad in one jitted update a minibatch, a Python loop over NumPy rows.",
}


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    inputs = work.images.astype(np.float32) / 255
    targets = np.eye(work.sizes[-1], dtype=np.float32)[work.labels]
    if work.batch_size == len(inputs):
        inputs, targets = jax.device_put((inputs, targets))
    rng = np.random.default_rng(work.seed)
    optimizer = transformation(work)
    by_hand = work.optimizer == "sgd" and work.epochs is None

    @jax.jit
    def update(params, state, batch):
        loss, gradient = jax.value_and_grad(mean_squared_error)(params, batch)
        if by_hand:
            params = jax.tree.map(lambda p, g: p - work.learning_rate * g, params, gradient)
            return params, state, loss
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = jax.device_put(work.params)
    state = optimizer.init(params)

    def batches():
        if work.batch_size == len(inputs):
            yield inputs, targets
            return
        order = rng.permutation(len(inputs))
        for i in range(work.steps):
            rows = order[i * work.batch_size : (i + 1) * work.batch_size]
            yield inputs[rows], targets[rows]

    def epoch():
        nonlocal params, state
        losses = []
        for batch in batches():
            params, state, loss = update(params, state, batch)
            losses.append(loss)
        jax.block_until_ready(params)
        return float(np.mean(losses))

    def predict(images):
        return np.asarray(forward(params, images.astype(np.float32) / 255).argmax(axis=1))

    return Program(epoch, predict)


@jax.jit
def forward(params, inputs):
    """Returns the network's outputs, ``(batch, outputs)``."""
    for weight, bias in params:
        logits = inputs @ weight
        inputs = jax.nn.sigmoid(logits if bias is None else logits + bias)
    return inputs


def mean_squared_error(params, batch):
    """Returns the loss of a batch of inputs and targets."""
    inputs, targets = batch
    return jnp.mean(jnp.sum((forward(params, inputs) - targets) ** 2, axis=1))
