"""Functions with a wrong derivative, as a mistake in a hand-written backward pass makes it.

Each mistake stands under the operation that it differentiates, and its docstring says in a sentence
what is wrong. It takes the cotangent and the operation's arguments, and returns a cotangent for
each of them.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

__all__ = ["FUNCTIONS", "Wrong"]


class Wrong(NamedTuple):
    """A scalar function with its right derivative and with a wrong one.

    Attributes:
      right: a function of pytrees of arrays with a real scalar result, differentiated by JAX.
      wrong: returns the same values; its gradient is wrong in the first argument at least. A
        `jax.custom_vjp`, so reverse mode only. Its docstring says what is wrong.
      arguments: ``arguments(key, dtype)`` draws a tuple of arguments, given a key of `jax.random`
        and float32 or float64. Complex functions get complex arguments of the same precision.

    Example:
      >>> from jaxnet import faults
      >>> right, wrong, arguments = faults.FUNCTIONS["sqrt-half"]
      >>> x, = arguments(jax.random.key(0), jnp.float32)
      >>> bool(jnp.allclose(jax.grad(wrong)(x), 2 * jax.grad(right)(x)))
      True
    """

    right: Callable[..., jax.Array]
    wrong: Callable[..., jax.Array]
    arguments: Callable[[jax.Array, DTypeLike], tuple[Any, ...]]


_DRAWS = 32  # more than any function's arguments hold

FUNCTIONS: dict[str, Wrong] = {}


def _fault(operation: Callable, arguments: Callable) -> Callable[[Callable], Callable]:
    """Adds an operation with a wrong backward pass to `FUNCTIONS`."""

    def add(backward):
        @jax.custom_vjp
        def operation_with_mistake(*args):
            return operation(*args)

        operation_with_mistake.defvjp(
            lambda *args: (operation(*args), args),
            lambda args, cotangent: tuple(backward(cotangent, *args)),
        )

        def right(*args):
            return _scalar(operation(*args))

        def wrong(*args):
            return _scalar(operation_with_mistake(*args))

        wrong.__doc__ = backward.__doc__
        FUNCTIONS[backward.__name__.replace("_", "-")] = Wrong(right, wrong, arguments)
        return backward

    return add


def _scalar(array: jax.Array) -> jax.Array:
    """Makes a result a scalar, with a cotangent that is not 1 and differs between elements."""
    weights = jnp.linspace(1, 2, array.size, dtype=array.dtype).reshape(array.shape)
    return jnp.sum(weights * jnp.sin(array))


def _normal(*shapes: tuple[int, ...], change: Callable = lambda *arrays: arrays) -> Callable:
    """Returns what draws arrays of these shapes from the normal distribution and changes them."""

    def arguments(key, dtype):
        # All are cut from one draw of one size, because every other size is compiled anew.
        draws = jax.random.normal(key, (_DRAWS,), dtype)
        *arrays, _ = jnp.split(draws, list(itertools.accumulate(map(math.prod, shapes))))
        return change(*map(jnp.reshape, arrays, shapes))

    return arguments


# --- The chain rule -------------------------------------------------------------------------------


@_fault(jnp.sin, _normal((5,)))
def cotangent_forgotten(cotangent, x):
    """The local derivative handed on without the cotangent, as if nothing came after."""
    return (jnp.cos(x),)


@_fault(jnp.multiply, _normal((5,), (5,)))
def arguments_swapped(cotangent, x, y):
    """The derivatives of a product returned in the wrong order."""
    return cotangent * x, cotangent * y


@_fault(lambda x: x * jnp.sin(x), _normal((5,)))
def product_rule(cotangent, x):
    """The product rule with one of its two terms."""
    return (cotangent * jnp.sin(x),)


@_fault(lambda y, x: x / y, _normal((5,), (5,), change=lambda y, x: (jnp.exp(y), x)))
def quotient_sign(cotangent, y, x):
    """The minus of a denominator's derivative forgotten."""
    return cotangent * x / y**2, cotangent / y


@_fault(jnp.sqrt, _normal((5,), change=lambda x: (jnp.exp(x),)))
def sqrt_half(cotangent, x):
    """The 1/2 of the square root's derivative forgotten."""
    return (cotangent / jnp.sqrt(x),)


@_fault(jnp.tanh, _normal((5,)))
def straight_through(cotangent, x):
    """The cotangent passed straight through a squashing function, whose slope is not 1."""
    return (cotangent,)


@_fault(lambda x: jnp.where(x > 0, x, 0.1 * x), _normal((8,)))
def wrong_branch(cotangent, x):
    """The slopes of a leaky ReLU's two branches swapped."""
    return (jnp.where(x > 0, 0.1 * cotangent, cotangent),)


@_fault(lambda x: x + jnp.tanh(x), _normal((5,)))
def skip_connection(cotangent, x):
    """A residual block's gradient without that of its skip connection."""
    return (cotangent * (1 - jnp.tanh(x) ** 2),)


def _tied(weight, x):
    return weight @ jnp.tanh(weight @ x)


@_fault(_tied, _normal((4, 4), (4,)))
def shared_weight(cotangent, weight, x):
    """A weight that is used twice and gets the gradient of its last use only."""
    hidden = jnp.tanh(weight @ x)
    return (
        jnp.outer(cotangent, hidden),
        weight.T @ ((1 - hidden**2) * (weight.T @ cotangent)),
    )


# --- Broadcasts and reductions --------------------------------------------------------------------


@_fault(lambda bias, x: x + bias[None, :], _normal((3,), (4, 3)))
def broadcast_one_row(cotangent, bias, x):
    """The cotangent of an array that was broadcast taken from the first row, not summed."""
    return cotangent[0], cotangent


@_fault(lambda scale, x: x * scale[None, :], _normal((3,), (4, 3)))
def broadcast_averaged(cotangent, scale, x):
    """The cotangent of an array that was broadcast averaged over the rows, not summed."""
    return jnp.mean(cotangent * x, axis=0), cotangent * scale[None, :]


def _affine(layer, x):
    return x * layer["scale"][None, :] + layer["shift"][None, :]


@_fault(
    _affine,
    _normal(
        (3,), (3,), (4, 3), change=lambda scale, shift, x: ({"scale": scale, "shift": shift}, x)
    ),
)
def leaves_swapped(cotangent, layer, x):
    """Two leaves of one shape that get each other's gradient."""
    gradient = {"shift": jnp.sum(cotangent * x, axis=0), "scale": jnp.sum(cotangent, axis=0)}
    return gradient, cotangent * layer["scale"][None, :]


@_fault(lambda x: jnp.mean(x, axis=0), _normal((4, 3)))
def mean_not_divided(cotangent, x):
    """The cotangent of a mean not divided by how many were averaged."""
    return (jnp.broadcast_to(cotangent[None, :], x.shape),)


@_fault(lambda x: jnp.max(x, axis=1), _normal((3, 4)))
def maximum_spread(cotangent, x):
    """The cotangent of a maximum given to all elements, not to the largest."""
    return (jnp.broadcast_to(cotangent[:, None], x.shape),)


@_fault(jnp.linalg.norm, _normal((9,)))
def norm_not_divided(cotangent, x):
    """The gradient of half the squared norm for that of the norm: x not divided by it."""
    return (cotangent * x,)


@_fault(jax.nn.logsumexp, _normal((5,)))
def logsumexp_normaliser(cotangent, x):
    """The derivative of log-sum-exp not divided by the sum: exp for softmax."""
    return (cotangent * jnp.exp(x),)


@_fault(jnp.cumsum, _normal((5,)))
def cumsum_not_reversed(cotangent, x):
    """The cotangent of a cumulative sum summed forwards again, not backwards."""
    return (jnp.cumsum(cotangent),)


@_fault(jax.nn.softmax, _normal((5,)))
def softmax_elementwise(cotangent, x):
    """Softmax differentiated like a sigmoid, ``p * (1 - p)``, as if outputs were independent."""
    p = jax.nn.softmax(x)
    return (cotangent * p * (1 - p),)


def _centred(x):
    return x - jnp.mean(x, axis=1, keepdims=True)


def _deviation(x):
    return jnp.sqrt(jnp.mean(_centred(x) ** 2, axis=1, keepdims=True) + 1e-6)


def _layer_norm(x):
    return _centred(x) / _deviation(x)


@_fault(_layer_norm, _normal((3, 5)))
def layer_norm_mean(cotangent, x):
    """Layer normalisation differentiated with its mean taken for a constant."""
    y = _layer_norm(x)
    return ((cotangent - y * jnp.mean(cotangent * y, axis=1, keepdims=True)) / _deviation(x),)


@_fault(_layer_norm, _normal((3, 5)))
def layer_norm_variance(cotangent, x):
    """Layer normalisation differentiated with its variance taken for a constant."""
    return (_centred(cotangent) / _deviation(x),)


# --- Indices --------------------------------------------------------------------------------------

_ROWS = np.array([0, 2, 2, 1, 2], np.int32)
_ORDER = np.array([2, 0, 3, 1], np.int32)
_MASK = np.array([True, False, True, True, False, True])


@_fault(lambda x: x[_ROWS], _normal((4,)))
def gather_overwrites(cotangent, x):
    """The cotangents of a row that is read repeatedly overwrite each other, and do not add up."""
    return (jnp.zeros_like(x).at[_ROWS].set(cotangent),)


@_fault(lambda x: x[_ORDER], _normal((4,)))
def permutation_not_inverted(cotangent, x):
    """The cotangent of a permutation permuted again, not back."""
    return (cotangent[_ORDER],)


@_fault(lambda x: jnp.where(_MASK, 2 * x, 0), _normal((6,)))
def dropout_mask(cotangent, x):
    """Dropout whose backward pass has a mask of its own."""
    return (jnp.where(np.roll(_MASK, 1), 2 * cotangent, 0),)


# --- Linear algebra -------------------------------------------------------------------------------


def _well_conditioned(matrix, *others):
    return matrix + 4 * jnp.eye(len(matrix), dtype=matrix.dtype), *others


@_fault(lambda matrix, x: jnp.einsum("ij,j->i", matrix, x), _normal((4, 4), (4,)))
def einsum_transposed(cotangent, matrix, x):
    """The indices of a square matrix's gradient in the wrong order."""
    return jnp.einsum("i,j->ji", cotangent, x), jnp.einsum("ij,i->j", matrix, cotangent)


@_fault(jnp.convolve, _normal((3,), (6,)))
def convolution_not_flipped(cotangent, kernel, x):
    """The cotangent of a convolution convolved, where it has to be correlated."""
    return (
        jnp.convolve(cotangent, x, mode="valid"),
        jnp.convolve(cotangent, kernel, mode="valid"),
    )


@_fault(jnp.linalg.solve, _normal((4, 4), (4,), change=_well_conditioned))
def solve_not_transposed(cotangent, matrix, b):
    """The implicit derivative of a linear system solved with the matrix, not its transpose."""
    adjoint = jnp.linalg.solve(matrix, cotangent)
    return -jnp.outer(adjoint, jnp.linalg.solve(matrix, b)), adjoint


@_fault(lambda matrix: jnp.linalg.slogdet(matrix)[1], _normal((4, 4), change=_well_conditioned))
def determinant_not_transposed(cotangent, matrix):
    """The gradient of a log-determinant: the inverse, not its transpose."""
    return (cotangent * jnp.linalg.inv(matrix),)


# --- Loops ----------------------------------------------------------------------------------------


def _recurrence(weight, inputs):
    def step(state, x):
        state = jnp.tanh(weight * state + x)
        return state, state

    return jax.lax.scan(step, jnp.zeros_like(weight), inputs)[1]


@_fault(_recurrence, _normal((3,), (5, 3)))
def last_step_only(cotangent, weight, inputs):
    """A recurrence that gets the cotangent of its last output and none of the others."""
    return jax.vjp(_recurrence, weight, inputs)[1](cotangent.at[:-1].set(0))


def _step(state, weight, x):
    return jnp.tanh(weight @ state / 8 + x)


def _fixed_point(weight, x):
    return jax.lax.fori_loop(0, 50, lambda _, state: _step(state, weight, x), jnp.zeros_like(x))


@_fault(_fixed_point, _normal((4, 4), (4,)))
def fixed_point_one_step(cotangent, weight, x):
    """A fixed point differentiated through its last step only, its input taken for a constant."""
    state = _fixed_point(weight, x)
    return jax.vjp(lambda weight, x: _step(state, weight, x), weight, x)[1](cotangent)


# --- Complex numbers ------------------------------------------------------------------------------


@_fault(
    lambda z: z.real**2 + z.imag**2,
    _normal((5,), (5,), change=lambda real, imag: (jax.lax.complex(real, imag),)),
)
def conjugate_forgotten(cotangent, z):
    """A conjugate forgotten: 2 z for ``2 conj(z)``, which is JAX's gradient of ``|z|**2``."""
    return (2 * cotangent.astype(z.dtype) * z,)
