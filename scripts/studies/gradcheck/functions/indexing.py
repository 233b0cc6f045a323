"""Gathers, scatters, sorts and slices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from studies.gradcheck.functions.drawing import Draw, Drawn

__all__ = ["indexing"]

_KINDS = (
    "embedding",
    "scatter-add",
    "scatter-set",
    "segment-sum",
    "segment-max",
    "sort",
    "cumulative",
    "slice",
    "top k",
    "roll",
)


def indexing(draw: Draw) -> Drawn:
    """Draws a function that gathers, scatters, sorts, slices or sums segments."""
    kind = draw.choose(_KINDS)
    rows, width, count = draw.log_integer(2, 200), draw.log_integer(1, 32), draw.integer(1, 64)
    table, other = draw.normal(rows, width), draw.normal(count, width)
    index, weights = draw.indices(rows, count), draw.normal(rows, width)
    if kind == "embedding":

        def embedding(table, index, other):
            return jnp.mean((jnp.sin(table[index]) - other) ** 2)

        f, args = embedding, (table, index, other)
    elif kind == "scatter-add":

        def scatter_add(leaves, index, weights):
            return jnp.sum(weights * leaves[0].at[index].add(leaves[1]) ** 2)

        f, args = scatter_add, ((table, other), index, weights)
    elif kind == "scatter-set":
        count = min(count, rows - 1)
        index = draw.rng.permutation(rows)[:count].astype(np.int32)

        def scatter_set(leaves, index, weights):
            return jnp.sum(weights * jnp.sin(leaves[0].at[index].set(leaves[1])))

        f, args = scatter_set, ((table, other[:count]), index, weights)
    elif kind in ("segment-sum", "segment-max"):
        reduce = jax.ops.segment_sum if kind == "segment-sum" else jax.ops.segment_max

        def segments(table, index, weights):
            sums = reduce(table, index, num_segments=count)
            return jnp.sum(jnp.tanh(jnp.where(jnp.isfinite(sums), sums, 0.0)) * weights)

        f, args = segments, (table, draw.indices(count, rows), draw.normal(count, width))
    elif kind == "sort":

        def sort(table, weights):
            return jnp.sum(weights * jnp.sort(table, axis=0) ** 2)

        f, args = sort, (table, weights)
    elif kind == "cumulative":

        def cumulative(table, weights):
            sums, products = jnp.cumsum(table, axis=0), jnp.cumprod(1 + 0.1 * table, axis=0)
            return jnp.mean(weights * (sums + products))

        f, args = cumulative, (table, weights)
    elif kind == "slice":
        length = draw.integer(1, rows)

        def piece_of(table, start, weights):
            piece = lax.dynamic_slice_in_dim(table, start, length)
            return jnp.sum(weights[:length] * jnp.exp(piece))

        f, args = piece_of, (table, draw.indices(rows - length + 1), weights)
    elif kind == "top k":

        def top_k(table, weights):
            return jnp.dot(weights, jnp.sin(lax.top_k(table.ravel(), len(weights))[0]))

        f, args = top_k, (table, draw.normal(draw.integer(1, rows)))
    else:

        def roll(table, weights):
            mixed = jnp.concatenate([jnp.roll(table, 1, axis=0), table[::-1]], axis=1)
            return jnp.sum(jnp.sum(mixed.reshape(rows, 2, width) ** 3, axis=1) * weights)

        f, args = roll, (table, weights)
    return f"{kind}, {rows} x {width}, {count} indices", f, args
