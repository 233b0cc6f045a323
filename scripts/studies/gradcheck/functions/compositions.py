"""Compositions, sums, products and ratios of leaves."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from studies.gradcheck.functions.drawing import Draw, Drawn

__all__ = ["composition", "logsumexp", "scales"]


def composition(draw: Draw) -> Drawn:
    """Draws a sum of chains of elementwise functions, one chain for each leaf."""
    leaves, weights, chains, names = {}, {}, {}, []
    for name in "abcd"[: draw.integer(1, 4)]:
        shape = draw.shape()
        leaves[name] = draw.uniform(-2, 2, *shape)
        weights[name] = draw.normal(*shape)
        steps, growing = [], 0
        for _ in range(draw.integer(1, 5)):
            step = draw.choose(tuple(_UNARY if growing < 2 else _BOUNDED))
            growing += step in _GROWING
            steps.append((step, draw.log_uniform(1, 100) if step == "sin k" else 1.0))
        chains[name] = steps
        names.append(" ".join(step for step, _ in steps))
    outer = draw.choose(("sum", "sin of the sum", "log1p of the square"))

    def f(leaves, weights):
        terms = []
        for name, leaf in leaves.items():
            for step, factor in chains[name]:
                leaf = _UNARY[step](leaf * factor)
            terms.append(jnp.mean(weights[name] * leaf))
        total = jnp.sum(jnp.stack(terms))
        if outer == "sum":
            return total
        return jnp.sin(total) if outer == "sin of the sum" else jnp.log1p(total**2)

    if _least_share(f, leaves, weights) < 1e-8:
        return composition(draw)
    return f"{outer}, {', '.join(names)}", f, (leaves, weights)


def _least_share(f: Callable[..., jax.Array], params: Any, *args: Any) -> float:
    """Returns the smallest relative change of the value that a leaf's own scale makes."""
    with jax.enable_x64(True):
        params, args = jax.tree.map(lambda leaf: leaf.astype(np.float64), (params, args))
        value, gradient = jax.value_and_grad(f)(params, *args)
        effects = jax.tree.map(
            lambda slope, leaf: float(jnp.linalg.norm(slope) * jnp.sqrt(jnp.mean(leaf**2))),
            gradient,
            params,
        )
    return min(jax.tree.leaves(effects)) / max(abs(float(value)), 1e-300)


_BOUNDED: dict[str, Callable] = {
    "sin": jnp.sin,
    "sin k": jnp.sin,
    "cos": jnp.cos,
    "tanh": jnp.tanh,
    "arctan": jnp.arctan,
    "erf": jax.scipy.special.erf,
    "log1p square": lambda x: jnp.log1p(x**2),
    "root": lambda x: jnp.sqrt(1 + x**2),
    "Lorentz": lambda x: 1 / (1 + x**2),
    "Gauss": lambda x: jnp.exp(-(x**2)),
}
_GROWING: dict[str, Callable] = {"exp": jnp.exp, "expm1": jnp.expm1}
_UNARY = _BOUNDED | _GROWING


def logsumexp(draw: Draw) -> Drawn:
    """Draws a soft maximum over rows, at a temperature that is a leaf or given."""
    rows, columns = draw.log_integer(1, 64), draw.log_integer(2, 1000)
    logits = draw.normal(rows, columns, scale=draw.log_uniform(0.1, 10))
    weights = draw.normal(rows)
    if draw.coin():
        # Its gradient is an entropy, logsumexp(x / T) - sum(p x / T); colder, it cancels.
        temperature = np.asarray(draw.log_uniform(0.5, 10) * np.std(logits), np.float32)

        def warm(leaves, weights):
            logits, temperature = leaves
            return jnp.dot(weights, temperature * jax.nn.logsumexp(logits / temperature, axis=1))

        f, args = warm, ([logits, temperature], weights)
    else:
        temperature = np.asarray(draw.log_uniform(1e-3, 1e3), np.float32)

        def given(logits, weights, temperature):
            return jnp.dot(weights, temperature * jax.nn.logsumexp(logits / temperature, axis=1))

        f, args = given, (logits, weights, temperature)
    return f"{rows} x {columns}, temperature {temperature:.2g}", f, args


def scales(draw: Draw) -> Drawn:
    """Draws a sum, product or ratio of leaves whose sizes differ by up to 1e12."""
    kind = draw.choose(("sum", "product", "ratio", "vector's product"))
    shapes = [draw.shape() for _ in range(draw.integer(2, 4))]
    scales = [draw.log_uniform(1e-6, 1e6) for _ in shapes]
    if kind == "vector's product":
        signs = draw.rng.choice([-1, 1], 12)
        leaf = draw.uniform(0.5, 2, 12) * signs.astype(np.float32)
        leaf[0] *= np.float32(scales[0])

        def product_of_one(leaf):
            return jnp.prod(leaf)

        f, args = product_of_one, (leaf,)
    elif kind == "ratio":
        above, below = (scale * (2 + draw.normal(draw.log_integer(2, 100))) for scale in scales[:2])

        def ratio(leaves):
            above, below = leaves
            return jnp.sum(above) / jnp.sqrt(jnp.sum(below**2))

        f, args = ratio, ((above.astype(np.float32), below.astype(np.float32)),)
    else:
        leaves = {
            f"scale {scale:.1e}": draw.normal(*shape, scale=scale)
            for shape, scale in zip(shapes, scales, strict=True)
        }
        units = {name: np.float32(1 / float(name.split()[1])) for name in leaves}
        weights = {name: draw.normal(*leaf.shape) for name, leaf in leaves.items()}
        if kind == "sum":
            sizes = {name: np.float32(draw.log_uniform(1e-3, 1e3)) for name in leaves}

            def total(leaves, weights, units, sizes):
                terms = [
                    sizes[name] * jnp.mean(weights[name] * jnp.sin(leaf * units[name]))
                    for name, leaf in leaves.items()
                ]
                return jnp.sum(jnp.stack(terms))

            f, args = total, (leaves, weights, units, sizes)
        else:

            def product(leaves, weights):
                means = [jnp.mean(weights[name] * leaf) for name, leaf in leaves.items()]
                return jnp.prod(jnp.stack(means))

            f, args = product, (leaves, weights)
    return f"{kind}, {', '.join(f'{scale:.1e}' for scale in scales)}", f, args
