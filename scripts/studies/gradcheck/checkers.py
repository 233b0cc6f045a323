"""What other gradient checkers say, each called as its manual shows, at its defaults."""

# pyright: reportMissingImports=false

import contextlib
import functools
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.test_util  # not imported by jax itself
import numpy as np

from jaxnet.types import Params, ValueAndGrad

__all__ = ["Verdict", "attach", "has_torch", "jax_check_grads", "torch_gradcheck", "use_one_thread"]


class Verdict(NamedTuple):
    """What a checker said.

    Attributes:
      passed: whether it raised no exception, of whatever kind.
      message: of the exception and of warnings, in one line.
      seconds: of wall clock, compilation included.
    """

    passed: bool
    message: str
    seconds: float


def jax_check_grads(
    f: Callable[..., jax.Array],
    gradient: Callable[..., Any] | None,
    args: tuple[Any, ...],
    *,
    x64: bool,
) -> Verdict:
    """Asks `jax.test_util.check_grads`, in reverse mode.

    Args:
      f: a scalar function of ``args``.
      gradient: the gradient to check, ``gradient(*args)``, a pytree like ``args[0]``; None means
        JAX's own derivative of ``f``.
      args: arrays; only ``args[0]`` is differentiated.
      x64: whether to check in float64, with arguments cast; otherwise they stay as they are.
    """
    with jax.enable_x64(True) if x64 else contextlib.nullcontext():
        first, *others = _cast(args, jnp.float64) if x64 else args
        checked = jax.jit(f) if gradient is None else _attached(f, gradient)
        return _verdict(
            lambda: jax.test_util.check_grads(
                lambda leaves: checked(leaves, *others), (first,), order=1, modes=["rev"]
            )
        )


@functools.cache  # compiled once for all states
def _attached(
    f: Callable[..., jax.Array], gradient: Callable[..., Any]
) -> Callable[..., jax.Array]:
    return jax.jit(attach(f, gradient))


def attach(f: Callable[..., jax.Array], gradient: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Returns ``f`` with ``gradient(*args)``, right or wrong, as its derivative in ``args[0]``."""

    @jax.custom_vjp
    def attached(first, others):
        return f(first, *others)

    def forward(first, others):
        return f(first, *others), (first, others)

    def backward(residuals, cotangent):
        first, others = residuals
        return jax.tree.map(lambda leaf: cotangent * leaf, gradient(first, *others)), None

    attached.defvjp(forward, backward)
    return lambda first, *others: attached(first, others)


def has_torch() -> bool:
    """Returns whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def use_one_thread() -> None:
    """Has PyTorch use one thread from now on."""
    import torch

    torch.set_num_threads(1)


def torch_gradcheck(
    value_and_grad: ValueAndGrad,
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    fast: bool = True,
) -> Verdict:
    """Asks `torch.autograd.gradcheck` about a gradient of `mlp.loss`, in float64.

    The loss is written in torch, as a `torch.autograd.Function` whose backward pass calls JAX.

    Once the fast mode has found a difference, PyTorch runs the slow mode as well, for a longer
    message. It is spared that here: it takes two losses for each of 235,146 coordinates, and the
    verdict stands.

    Args:
      value_and_grad: of `mlp.loss`; only its gradient is checked.
      params: layers.
      inputs: ``(batch, inputs)``.
      targets: ``(batch, outputs)``.
      fast: one random projection of each leaf's gradient; otherwise every coordinate.

    Raises:
      ModuleNotFoundError: no PyTorch.
    """
    import torch

    leaves, structure = jax.tree.flatten(params)

    def to_torch(array) -> Any:
        return torch.from_numpy(np.array(array, np.float64))

    x, t = to_torch(inputs), to_torch(targets)

    def backward(*arrays):
        with jax.enable_x64(True):
            rebuilt = jax.tree.unflatten(structure, arrays)
            cast = _cast((rebuilt, inputs, targets), jnp.float64)
            return jax.tree.leaves(value_and_grad(*cast)[1])

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            layers = jax.tree.unflatten(structure, tensors)
            hidden = x
            for weight, bias in layers:
                logits = hidden @ weight
                hidden = torch.sigmoid(logits if bias is None else logits + bias)
            return torch.mean(torch.sum((hidden - t) ** 2, dim=1))

        @staticmethod
        def backward(ctx, *grad_outputs):
            gradient = backward(*(tensor.numpy() for tensor in ctx.saved_tensors))
            return tuple(grad_outputs[0] * to_torch(leaf) for leaf in gradient)

    arguments = tuple(to_torch(leaf).requires_grad_() for leaf in leaves)
    with _without_slow_mode():
        return _verdict(lambda: torch.autograd.gradcheck(Loss.apply, arguments, fast_mode=fast))


@contextlib.contextmanager
def _without_slow_mode():
    """Keeps the fast mode from running the slow one as well, which would change no verdict."""
    module: Any = sys.modules["torch.autograd.gradcheck"]  # the attribute is the function
    original = module._run_slow_mode_and_get_error
    module._run_slow_mode_and_get_error = lambda *args, **kwargs: ""
    try:
        yield
    finally:
        module._run_slow_mode_and_get_error = original


def _verdict(check: Callable[[], object]) -> Verdict:
    start, passed, messages = time.perf_counter(), True, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check()
        except Exception as error:  # whatever it raises, the gradient is refused
            passed = False
            messages.append(f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - start
    messages += [f"warning: {each.message}" for each in caught]
    return Verdict(passed, " ".join(" ".join(dict.fromkeys(messages)).split()), seconds)


def _cast(tree: Any, dtype: Any) -> Any:
    def cast(leaf):
        is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(leaf, dtype if is_float else leaf.dtype)

    return jax.tree.map(cast, tree)
