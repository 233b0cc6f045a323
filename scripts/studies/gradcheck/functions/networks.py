"""Networks of one to six layers."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from studies.gradcheck.functions.drawing import Draw, Drawn

__all__ = ["ACTIVATIONS", "network"]

ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "sigmoid": (jax.nn.sigmoid, scipy.special.expit),
    "tanh": (jnp.tanh, np.tanh),
    "relu": (jax.nn.relu, lambda x: np.maximum(x, 0)),
    "gelu": (jax.nn.gelu, lambda x: x * scipy.special.ndtr(x)),
    "softplus": (jax.nn.softplus, lambda x: np.logaddexp(x, 0)),
    "sin": (jnp.sin, np.sin),
}


def network(draw: Draw) -> Drawn:
    """Draws a network, its loss and a batch; of any width, activation and size of the weights."""
    depth, batch = draw.integer(1, 6), draw.log_integer(1, 256)
    activation = draw.choose(tuple(ACTIVATIONS))
    loss = draw.choose(("squared error", "cross-entropy"))
    gain = draw.log_uniform(0.3, 2) if draw.coin(0.7) else draw.log_uniform(2, 10)
    if activation not in ("sigmoid", "tanh"):  # the others do not saturate
        gain = min(gain, 3.0)
    biases, average = draw.coin(0.7), draw.coin()
    linear_output = loss == "cross-entropy" or activation == "relu" or draw.coin()
    sizes = [draw.log_integer(1, 512) for _ in range(depth + 1)]
    if loss == "cross-entropy":
        sizes[-1] = max(sizes[-1], 2)

    inputs = draw.normal(batch, sizes[0], scale=draw.log_uniform(0.1, 3))
    layers, example, logits = [], inputs[0], inputs[0]
    for index in range(depth):
        last = index == depth - 1
        # A linear output layer with more would make a softmax that is nearly certain.
        scale = min(gain, 2.0) if last and linear_output else gain
        scale *= 4 if activation == "sigmoid" else 1
        weight = draw.normal(sizes[index], sizes[index + 1], scale=scale / math.sqrt(sizes[index]))
        bias = draw.normal(sizes[index + 1], scale=min(scale, 1.0))
        if not (last and linear_output):
            weight, bias = _awaken(activation, example, weight, bias if biases else 0 * bias)
        logits = example @ weight + (bias if biases else 0)
        example = ACTIVATIONS[activation][1](logits)
        layers.append({"weight": weight, "bias": bias if biases else None})
    if loss == "cross-entropy":
        targets = draw.indices(sizes[-1], batch)
        if scipy.special.softmax(logits)[targets[0]] > 0.999999:  # sure, and right: no slope
            targets[0] = np.argmin(logits)
    else:
        outputs = logits if linear_output else example
        size = float(np.sqrt(np.mean(outputs**2)))
        targets = draw.normal(batch, sizes[-1], scale=min(1.0, 30 * size))

    def f(params, inputs, targets):
        hidden = inputs
        for index, layer in enumerate(params):
            hidden = hidden @ layer["weight"]
            if layer["bias"] is not None:
                hidden += layer["bias"]
            if index < len(params) - 1 or not linear_output:
                hidden = ACTIVATIONS[activation][0](hidden)
        if loss == "cross-entropy":
            right = jnp.take_along_axis(hidden, targets[:, None], axis=1)[:, 0]
            losses = jax.nn.logsumexp(hidden, axis=1) - right
        else:
            losses = jnp.sum((hidden - targets) ** 2, axis=1)
        return jnp.mean(losses) if average else jnp.sum(losses)

    params = tuple(layers) if draw.coin() else layers
    details = (
        f"{'-'.join(map(str, sizes))}, batch {batch}, {activation}, gain {gain:.2g}, "
        f"{'biases' if biases else 'no biases'}, {loss}"
    )
    return details, f, (params, inputs, targets)


def _awaken(activation, example, weight, bias):
    """Returns a layer with at least one unit that is not saturated or dead for one example."""
    logits = example @ weight + bias
    if activation in ("sigmoid", "tanh") and (least := np.min(np.abs(logits))) > 3:
        return weight * np.float32(3 / least), bias * np.float32(3 / least)
    if activation in ("relu", "gelu", "softplus") and np.max(logits) <= 0:
        return -weight, -bias
    return weight, bias
