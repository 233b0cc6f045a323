"""Finite differences: their errors O(h) and O(h^2), measured."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import data, gradcheck, mlp, plots
from jaxnet.lecture import differences
from jaxnet.lecture.page import Code, Formula, Picture, Section, Table, Text

__all__ = ["product", "section"]


def product(point: jax.Array) -> jax.Array:
    """Returns x y, the slide's example, at a point ``(2,)``."""
    return point[0] * point[1]


def section() -> Section:
    """Returns the section on finite differences and their errors."""
    digits = data.load("digits", validation_split=0).train
    batch = (jnp.asarray(digits.inputs[:256]), jnp.asarray(digits.targets[:256]))
    params = mlp.init(jax.random.key(0), (64, 16, 10), dtype=jnp.float32)
    keys = iter(jax.random.split(jax.random.key(1), 8))
    along = jax.tree.map(
        lambda leaf: jax.random.normal(next(keys), leaf.shape, jnp.float32), params
    )

    def loss(params):
        dtype = params[0].weight.dtype
        return mlp.loss(params, *(each.astype(dtype) for each in batch))

    functions: dict[str, tuple[Any, ...]] = {
        "x y, along (1, 1)": (product, np.array([5.0, -2.0]), np.array([1.0, 1.0])),
        "sigmoid at 1": (lambda s: jax.nn.sigmoid(s[0]), np.array([1.0]), np.array([1.0])),
        "loss of 64-16-10": (loss, params, along),
    }
    measured = {
        name: {dtype: differences.errors(*each, dtype=dtype) for dtype in ("float32", "float64")}
        for name, each in functions.items()
    }
    ranges = {"forward": (1e-6, 1e-3), "central": (1e-4, 1e-2)}
    slopes = {
        name: {
            scheme: by_dtype["float64"].slope(scheme, *ranges[scheme])
            for scheme in differences.SCHEMES
        }
        for name, by_dtype in measured.items()
    }
    curves = {
        name: {dtype: each._asdict() for dtype, each in by_dtype.items()}
        for name, by_dtype in measured.items()
    }
    point = jnp.array([5.0, -2.0])
    exact = jax.grad(product)(point)
    numerical = gradcheck.finite_difference(product, point)
    return Section(
        "differences",
        "Finite differences",
        'But how do we figure out what\'s "Best"?; Quick review of derivatives',
        [
            Text(
                "A derivative is the limit of difference quotients as their step h goes to 0. A "
                "computer stops at a small h. The forward difference looks to one side only, which "
                "is why the slide calls it unbalanced; its error grows with h. The central "
                "difference looks to both sides, where the terms with f'' cancel; its error grows "
                "with the square of h."
            ),
            Formula(
                r"\frac{f(a+h)-f(a)}{h} = f'(a) + \frac{h}{2} f''(a) + O(h^2), \quad "
                r"\frac{f(a+h)-f(a-h)}{2h} = f'(a) + \frac{h^2}{6} f'''(a) + O(h^4)"
            ),
            Picture(
                "differences",
                plots.lecture.difference_errors(curves),
                "Relative error of the derivative over the step h. From right to left, it falls "
                "with h (forward) or with the square of h (central), until rounding takes over: "
                "the rounding error of the values is divided by ever smaller steps. Where a step "
                "is so small that the value does not change, the difference is 0 and its error 1. "
                "Along a line, x y is a parabola, for which central differences are exact. Errors "
                "of exactly 0 are not drawn.",
            ),
            Table(
                ("function", "forward", "central"),
                [
                    (
                        name,
                        *(
                            "exact" if math.isnan(power) else f"{power:.3f}"
                            for power in slopes[name].values()
                        ),
                    )
                    for name in slopes
                ],
                "The power of h with which the error grows, fitted in float64. In theory it is 1 "
                "for forward and 2 for central differences.",
            ),
            Text(
                "The slide's example: f(x, y) = x y is -10 at (5, -2), and its gradient is (y, x). "
                f"`jax.grad` gives ({exact[0]:g}, {exact[1]:g}), central differences "
                f"({numerical[0]:.5g}, {numerical[1]:.5g})."
            ),
            Code([differences.errors]),
        ],
        {
            "slopes": slopes,
            "gradient of xy at (5, -2)": {
                "jax.grad": exact.tolist(),
                "central": numerical.tolist(),
            },
            "curves": {
                name: {
                    dtype: {
                        field: np.asarray(value).tolist()
                        for field, value in each.items()
                        if field != "dtype"
                    }
                    for dtype, each in by_dtype.items()
                }
                for name, by_dtype in curves.items()
            },
        },
    )
