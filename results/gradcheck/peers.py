"""What other gradient checkers say of a gradient, each as its manual shows it, at its defaults."""

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

from jaxnet.mlp import Params


class Verdict(NamedTuple):
    """What a checker said.

    Attributes:
      passed: whether it had no objection. An exception, of whatever kind, is an objection.
      message: the objection and the warnings, in one line.
      seconds: of wall clock, compilation included.
    """

    passed: bool
    message: str
    seconds: float


def jax_check_grads(
    f: Callable[..., jax.Array],
    gradient: Callable[..., Any] | None,
    args: tuple[Any, ...],
    x64: bool,
) -> Verdict:
    """Asks `jax.test_util.check_grads` for its opinion, in reverse mode.

    Args:
      f: a scalar function of ``args``.
      gradient: is called as ``gradient(*args)`` and returns a pytree like ``args[0]``; None for
        the derivative that ``f`` brings along.
      args: arrays; only ``args[0]`` is differentiated.
      x64: whether to cast them to float64, under ``jax.enable_x64``; else they are left as they
        are.
    """
    with jax.enable_x64(True) if x64 else contextlib.nullcontext():
        first, *others = _cast(args, jnp.float64) if x64 else args
        checked = jax.jit(f) if gradient is None else attached(f, gradient)
        return _verdict(
            lambda: jax.test_util.check_grads(
                lambda leaves: checked(leaves, *others), (first,), order=1, modes=["rev"]
            )
        )


@functools.cache  # compiled once for all states
def attached(f: Callable[..., jax.Array], gradient: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Returns `attach`, compiled."""
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


def available() -> bool:
    """Returns whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def use_one_thread() -> None:
    """Has PyTorch use one thread from now on."""
    import torch

    torch.set_num_threads(1)


def torch_gradcheck(
    value_and_grad: Callable[..., tuple[jax.Array, Params]],
    params: Params,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    kernel: str = "float64",
    tensors: str = "float64",
    fast_mode: bool = True,
) -> Verdict:
    """Asks `torch.autograd.gradcheck` for its opinion of a gradient of `mlp.loss`.

    The loss is written in torch, as a `torch.autograd.Function` whose backward pass calls JAX.

    A float32 kernel goes by ``kernel="float32"``: cast on the way in and out, for gradcheck's
    defaults are for double. Of tensors that are float32 themselves (``tensors="float32"``) it warns
    that it "will likely fail".

    The fast mode, once it has found a difference, takes the slow one at all coordinates of all
    leaves, for its message alone; of 235,146 parameters that is 470,292 losses. It is spared here:
    the verdict has been reached.

    Args:
      value_and_grad: with the contract of `backprop.value_and_grad`; its value is not looked at.
      params: layers.
      inputs: ``(batch, inputs)``.
      targets: ``(batch, outputs)``.
      kernel: dtype in which JAX computes the gradient.
      tensors: dtype of torch's tensors and of its loss.
      fast_mode: one random projection of each leaf's gradient; else every coordinate.

    Raises:
      ModuleNotFoundError: no PyTorch.
    """
    import torch

    leaves, structure = jax.tree.flatten(params)

    def to_torch(array) -> Any:
        return torch.from_numpy(np.array(array, tensors))

    x, t = to_torch(inputs), to_torch(targets)

    def backward(*arrays):
        with jax.enable_x64(True):
            rebuilt = jax.tree.unflatten(structure, arrays)
            cast = _cast((rebuilt, inputs, targets), jnp.dtype(kernel))
            return jax.tree.leaves(value_and_grad(*cast)[1])

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            remaining = list(tensors)
            layers = jax.tree.unflatten(structure, remaining)
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
        return _verdict(
            lambda: torch.autograd.gradcheck(Loss.apply, arguments, fast_mode=fast_mode)
        )


@contextlib.contextmanager
def _without_slow_mode():
    """Spares the fast mode its second opinion, which raises nothing and changes no verdict."""
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
        except Exception as error:  # a mistake in form is caught by whatever it raises
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


def main() -> None:
    """Prints what is there to be asked."""
    print(f"jax.test_util.check_grads of JAX {jax.__version__}")
    if not available():
        print("torch.autograd.gradcheck is skipped: PyTorch is not installed")
        return
    import torch

    print(f"torch.autograd.gradcheck of PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
