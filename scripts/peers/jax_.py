"""JAX alone: functions of a list of layers, one compiled update a minibatch, or an epoch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from peers import Program, Work
from peers.optax_ import transformation

VARIANTS = {
    "jax": "jax.value_and_grad in one jitted update a minibatch, a Python loop over NumPy rows.",
    "jax-bfloat16": "The same with products in bfloat16, summed in float32.",
    "jax-scan": "The same in float32 as one jitted lax.scan an epoch, with the data on the device.",
}


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    inputs = work.images * np.float32(1 / 255)
    targets = np.eye(work.sizes[-1], dtype=np.float32)[work.labels]
    is_full = work.batch_size == len(inputs)
    if is_full or variant == "jax-scan":
        inputs, targets = jax.device_put((inputs, targets))
    optimizer = transformation(work)
    by_hand = work.optimizer == "sgd" and work.epochs is None
    dtype = jnp.bfloat16 if variant == "jax-bfloat16" else jnp.float32
    objective = functools.partial(mean_squared_error, dtype=dtype)

    @jax.jit
    def update(params, state, total, batch):
        loss, gradient = jax.value_and_grad(objective)(params, batch)
        if by_hand:
            params = jax.tree.map(lambda p, g: p - work.learning_rate * g, params, gradient)
            return params, state, total + loss
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, total + loss

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def scan(params, state, key, inputs, targets):
        rows = jax.random.permutation(key, len(inputs))[: work.steps * work.batch_size]

        def step(carry, rows):
            return update(*carry, (inputs[rows], targets[rows])), None

        batches = rows.reshape(work.steps, work.batch_size)
        return jax.lax.scan(step, (params, state, 0.0), batches)[0]

    params = jax.tree.map(jnp.array, work.params)
    state = optimizer.init(params)
    rng, key = np.random.default_rng(work.seed), jax.random.key(work.seed)

    def batches():
        if is_full:
            yield inputs, targets
            return
        order = rng.permutation(len(inputs))
        for i in range(work.steps):
            rows = order[i * work.batch_size : (i + 1) * work.batch_size]
            yield inputs[rows], targets[rows]

    def epoch():
        nonlocal params, state, key
        total = 0.0
        if variant == "jax-scan" and not is_full:
            key, drawn = jax.random.split(key)
            params, state, total = scan(params, state, drawn, inputs, targets)
        else:
            for batch in batches():
                params, state, total = update(params, state, total, batch)
        jax.block_until_ready(params)
        return float(total) / work.steps

    def predict(images):
        return np.asarray(forward(params, images.astype(np.float32) / 255).argmax(axis=1))

    return Program(epoch, predict)


@functools.partial(jax.jit, static_argnames="dtype")
def forward(params, inputs, dtype=jnp.float32):
    """Returns the network's outputs, ``(batch, outputs)``."""
    for weight, bias in params:
        logits = jnp.matmul(
            inputs.astype(dtype), weight.astype(dtype), preferred_element_type=jnp.float32
        )
        inputs = jax.nn.sigmoid(logits if bias is None else logits + bias)
    return inputs


def mean_squared_error(params, batch, dtype):
    """Returns the loss of a batch of inputs and targets."""
    inputs, targets = batch
    return jnp.mean(jnp.sum((forward(params, inputs, dtype) - targets) ** 2, axis=1))
