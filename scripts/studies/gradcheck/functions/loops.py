"""Loops and branches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from studies.gradcheck.functions.drawing import Draw, Drawn

__all__ = ["control_flow", "initial_value", "recurrence"]


def initial_value(draw: Draw) -> Drawn:
    """Draws an initial value problem, solved by the midpoint rule."""
    kind = draw.choose(("oscillator", "relaxation"))
    length, path_counts = draw.log_integer(1, 200), draw.coin()
    stiffness = draw.log_uniform(0.1, 10 if kind == "oscillator" else 90)  # times h: 0.9

    def slope(state, stiffness, time):
        if kind == "relaxation":
            return -stiffness * (state - jnp.cos(time))
        place, speed = state  # of van der Pol's oscillator
        return jnp.stack([speed, stiffness * (1 - place**2) * speed - place])

    def f(leaves, h):
        state, stiffness = leaves["start"], leaves["stiffness"]

        def step(carry, _):
            state, time = carry
            middle = state + h / 2 * slope(state, stiffness, time)
            state = state + h * slope(middle, stiffness, time + h / 2)
            return (state, time + h), state[0]

        (last, _), path = lax.scan(step, (state, jnp.zeros_like(h)), None, length=length)
        return jnp.mean(path**2) + jnp.sum(last**2) if path_counts else jnp.sum(jnp.sin(last))

    leaves = {"start": draw.normal(2), "stiffness": np.asarray(stiffness, np.float32)}
    h = np.asarray(0.01, np.float32)
    return f"{kind}, {length} steps, stiffness {stiffness:.2g}", f, (leaves, h)


def recurrence(draw: Draw) -> Drawn:
    """Draws a recurrent network."""
    kind = draw.choose(("tanh", "gated", "linear"))
    length, width, batch = draw.log_integer(1, 64), draw.log_integer(1, 32), draw.integer(1, 8)
    every = draw.coin()
    gain = draw.log_uniform(0.1, 1.2)
    leaves = {
        "start": draw.normal(batch, width),
        "recurrent": draw.normal(width, width, scale=gain / math.sqrt(width)),
        "inputs": draw.normal(width, width, scale=1 / math.sqrt(width)),
    }
    if kind == "gated":
        leaves["gate"] = draw.normal(width, width, scale=3 / math.sqrt(width))
    if kind == "linear":
        leaves["recurrent"] = draw.uniform(0.3, 1.0, width)
    series, weights = draw.normal(length, batch, width), draw.normal(batch, width)

    def f(leaves, series, weights):
        def step(carry, inputs):
            driven = inputs @ leaves["inputs"]
            if kind == "linear":
                new = leaves["recurrent"] * carry + driven
            else:
                new = jnp.tanh(carry @ leaves["recurrent"] + driven)
            if kind == "gated":
                gate = jax.nn.sigmoid(inputs @ leaves["gate"])
                new = gate * carry + (1 - gate) * new
            return new, jnp.sum(weights * new)

        last, path = lax.scan(step, leaves["start"], series)
        # A state that forgets its start leaves it almost no gradient: look at all steps.
        return jnp.mean(jnp.sin(path)) if every else jnp.sum(weights * last) + jnp.mean(path)

    details = f"{kind}, length {length}, width {width}, batch {batch}, gain {gain:.2g}"
    return details, f, (leaves, series, weights)


def control_flow(draw: Draw) -> Drawn:
    """Draws a function with a branch, a condition, a kink or a loop."""
    kind = draw.choose(
        ("cond", "where", "Huber", "switch", "Newton", "cond in scan", "map", "clip"),
    )
    size = draw.log_integer(2, 300)
    leaf, weights = draw.normal(size), draw.normal(size)
    if kind == "cond":
        # Far from the jump: no difference quotient can be taken across it.
        threshold = np.asarray(
            np.dot(leaf, weights)
            + draw.choose((-1, 1)) * draw.rng.uniform(0.1, 1) * math.sqrt(size),
            np.float32,
        )

        def cond(leaves, weights, threshold):
            first, second = leaves
            return lax.cond(
                jnp.dot(first, weights) > threshold,
                lambda a, b: jnp.sum(jnp.sin(a) * b**2),
                lambda a, b: jnp.sum(jnp.exp(-(a**2)) * jnp.cos(b)),
                first,
                second,
            )

        f, args = cond, ([leaf, draw.normal(size)], weights, threshold)
    elif kind == "where":  # at 0 the slope of one branch is infinite, hence the second `where`
        leaf = leaf + np.copysign(np.float32(0.1), leaf)

        def where(leaf, weights):
            safe = jnp.where(leaf > 0, leaf, 1.0)
            return jnp.dot(weights, jnp.where(leaf > 0, jnp.sqrt(safe), jnp.expm1(leaf)))

        f, args = where, (leaf, weights)
    elif kind == "Huber":

        def huber(leaves, targets):
            error = leaves["scale"] * leaves["leaf"] - targets
            small = jnp.abs(error) <= 1
            return jnp.mean(jnp.where(small, 0.5 * error**2, jnp.abs(error) - 0.5))

        f, args = huber, ({"leaf": leaf, "scale": draw.uniform(0.5, 3)}, weights)
    elif kind == "switch":
        branches = (jnp.sin, jnp.tanh, lambda x: x**3, lambda x: jnp.log1p(x**2))

        def switch(leaf, weights, index):
            return jnp.dot(weights, lax.switch(index, branches, leaf))

        f, args = switch, (leaf, weights, draw.indices(len(branches)))
    elif kind == "Newton":  # a square root; the last iterations change nothing
        leaf = np.exp(leaf)

        def newton(leaf, weights):
            start = jnp.ones_like(leaf)
            roots = lax.fori_loop(0, 12, lambda _, root: 0.5 * (root + leaf / root), start)
            return jnp.dot(weights, roots)

        f, args = newton, (leaf, weights)
    elif kind == "cond in scan":

        def cond_in_scan(leaf, weights):
            def step(carry, inputs):
                number, weight = inputs
                odd = number % 2 == 1
                carry = lax.cond(
                    odd, lambda c: jnp.sin(c) + weight, lambda c: 0.5 * c * (1 + weight), carry
                )
                return carry, jnp.sum(carry**2)

            _, path = lax.scan(step, leaf, (jnp.arange(6), weights))
            return jnp.sum(path)

        f, args = cond_in_scan, (leaf, draw.normal(6))
    elif kind == "map":

        def mapped(leaves, weights):
            rows = lax.map(lambda row: jnp.tanh(row * leaves["factor"]).sum(), leaves["rows"])
            return jnp.dot(weights, rows)

        rows = draw.integer(1, 8)
        f, args = mapped, ({"rows": draw.normal(rows, size), "factor": leaf}, draw.normal(rows))
    else:

        def clip(leaf, weights):
            clipped = jnp.clip(leaf, -1.5, 1.5)
            return jnp.dot(weights, jnp.maximum(clipped, jnp.abs(leaf) * 0.3 - 0.1))

        f, args = clip, (leaf, weights)
    return f"{kind}, size {size}", f, args
