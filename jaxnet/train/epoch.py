"""An epoch: one compiled scan over minibatches that are drawn on the device."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxnet.data.pixels import from_uint8
from jaxnet.train.microbatch import accumulate, check_rows
from jaxnet.train.order import draw, steps_per_epoch
from jaxnet.train.sharding import shard
from jaxnet.types import Devices, Params, ValueAndGrad

__all__ = [
    "DivergedError",
    "TrainState",
    "init_state",
    "make_debug_epoch",
    "make_epoch",
    "make_epochs",
    "make_step",
    "scan",
]

_GATHERED = 2_560  # examples whose rows are gathered at once, as whole minibatches


class DivergedError(ArithmeticError):
    """Loss or parameters became NaN or infinite; the message names epoch and step."""


class TrainState(NamedTuple):
    """All that training changes; from it, training goes on as if it had not stopped.

    Attributes:
      params: the network's layers.
      optimizer_state: what the optax optimizer keeps.
      key: draws the order of examples; epoch i uses ``fold_in(key, i)``.
      epoch: int32 scalar, the number of epochs that are done.
    """

    params: Params
    optimizer_state: optax.OptState
    key: jax.Array
    epoch: jax.Array


def init_state(
    params: Params, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """Returns the state before the first epoch.

    Example:
      >>> from jaxnet import mlp
      >>> params = mlp.init(jax.random.key(0), (3, 1))
      >>> int(init_state(params, optax.sgd(0.1), jax.random.key(1)).epoch)
      0
    """
    return TrainState(params, optimizer.init(params), key, jnp.int32(0))


def make_step(
    value_and_grad: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    *,
    microbatch: int,
    devices: Devices | None = None,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns ``step(state, inputs, targets) -> (state, loss)``: one update, not jitted.

    Args:
      value_and_grad: of a loss that is a mean over the batch.
      optimizer: an optax transformation.
      microbatch: rows that a gradient is computed of at a time; see `accumulate`.
      devices: those that a batch is sharded over; see `shard`.

    Example:
      >>> from jaxnet import backprop, mlp
      >>> state = init_state(mlp.init(jax.random.key(0), (3, 1)), optax.sgd(0.1), jax.random.key(1))
      >>> step = make_step(backprop.value_and_grad, optax.sgd(0.1), microbatch=5)
      >>> state, loss = step(state, jnp.ones((5, 3)), jnp.ones((5, 1)))
    """
    optimizer = optax.with_extra_args_support(optimizer)  # some ask for the loss
    value_and_grad = accumulate(from_uint8(value_and_grad), microbatch)
    if devices is not None:
        value_and_grad = shard(value_and_grad, devices)

    def step(state: TrainState, inputs: Any, targets: Any) -> tuple[TrainState, jax.Array]:
        loss, gradient = value_and_grad(state.params, inputs, targets)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.params, value=loss, grad=gradient
        )
        params: Any = optax.apply_updates(state.params, updates)
        return state._replace(params=params, optimizer_state=optimizer_state), loss

    return step


def make_epoch(
    value_and_grad: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    microbatch: int | None = None,
    devices: Devices | None = None,
) -> jax.stages.Wrapped:
    """Returns the jitted ``epoch(state, inputs, targets) -> (state, losses)``.

    Minibatches are drawn anew in each epoch (`draw`). A batch as large as the training set is taken
    in the order it has, without a copy.

    Args:
      value_and_grad: of a loss that is a mean over the batch.
      optimizer: an optax transformation.
      batch_size: from 1 to the number of examples.
      microbatch: rows that a gradient is computed of at a time, on each device; None means all.
      devices: those that each batch is sharded over; None means JAX's default one.

    Returns:
      A function of a `TrainState`, ``inputs`` ``(n, pixels)`` and ``targets`` ``(n, classes)``,
      both uint8 or of the parameters' dtype. ``losses``, ``(steps,)``, are the minibatches' before
      their updates. When traced it raises `ValueError` for inputs and targets of different lengths,
      or a batch that is empty or larger than the training set.

    Example:
      >>> from jaxnet import backprop, mlp
      >>> state = init_state(mlp.init(jax.random.key(0), (3, 1)), optax.sgd(0.1), jax.random.key(1))
      >>> epoch = make_epoch(backprop.value_and_grad, optax.sgd(0.1), batch_size=2)
      >>> state, losses = epoch(state, jnp.ones((9, 3)), jnp.ones((9, 1)))
      >>> losses.shape
      (4,)
    """
    microbatch = batch_size if microbatch is None else microbatch
    step = make_step(value_and_grad, optimizer, microbatch=microbatch, devices=devices)

    def epoch(state: TrainState, inputs: Any, targets: Any) -> tuple[TrainState, jax.Array]:
        check_rows(inputs, targets)
        steps_per_epoch(len(inputs), batch_size)
        number = state.epoch + 1
        if batch_size == len(inputs):
            state, loss = step(state, inputs, targets)
            losses = loss[None]
        else:
            rows = draw(state.key, number, len(inputs), batch_size)
            state, losses = scan(step, state, rows, inputs, targets)
        return state._replace(epoch=number), losses

    return jax.jit(epoch)


def make_epochs(
    value_and_grad: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    count: int,
    microbatch: int | None = None,
    devices: Devices | None = None,
) -> jax.stages.Wrapped:
    """Returns what `make_epoch` does for ``count`` epochs, as one loop on the device.

    ``losses`` are ``(count, steps)``. Where an epoch takes less time than the host needs to start
    it, as the lecture's iterations do on a GPU, this keeps the device busy.

    Example:
      >>> from jaxnet import backprop, mlp
      >>> state = init_state(mlp.init(jax.random.key(0), (3, 1)), optax.sgd(0.1), jax.random.key(1))
      >>> epochs = make_epochs(backprop.value_and_grad, optax.sgd(0.1), batch_size=2, count=3)
      >>> epochs(state, jnp.ones((9, 3)), jnp.ones((9, 1)))[1].shape
      (3, 4)
    """
    epoch = make_epoch(
        value_and_grad, optimizer, batch_size=batch_size, microbatch=microbatch, devices=devices
    )

    def epochs(state: TrainState, inputs: Any, targets: Any) -> tuple[TrainState, jax.Array]:
        return jax.lax.scan(lambda s, _: epoch(s, inputs, targets), state, length=count)

    return jax.jit(epochs)


def make_debug_epoch(
    value_and_grad: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    microbatch: int | None = None,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns what `make_epoch` does, a step at a time, and looks for NaN after each.

    JAX then names the operation that made the NaN, where for a scan it would name the scan.

    The function raises `DivergedError` that names epoch, step, operation and line.

    Example:
      >>> from jaxnet import backprop, mlp
      >>> state = init_state(mlp.init(jax.random.key(0), (3, 1)), optax.sgd(0.1), jax.random.key(1))
      >>> epoch = make_debug_epoch(backprop.value_and_grad, optax.sgd(0.1), batch_size=9)
      >>> state, losses = epoch(state, jnp.ones((9, 3)), jnp.ones((9, 1)))
    """
    microbatch = batch_size if microbatch is None else microbatch
    step = jax.jit(make_step(value_and_grad, optimizer, microbatch=microbatch))

    def epoch(state: TrainState, inputs: Any, targets: Any) -> tuple[TrainState, jax.Array]:
        losses, number = [], state.epoch + 1
        full = batch_size == len(inputs)
        rows = [...] if full else draw(state.key, number, len(inputs), batch_size)
        for row in rows:
            try:
                with jax.debug_nans(True):
                    state, loss = step(state, inputs[row], targets[row])
            except FloatingPointError as error:
                raise DivergedError(
                    f"{str(error).splitlines()[0]} in epoch {number}, step {len(losses) + 1}, "
                    f"at {_last_line_outside_jax(error)}"
                ) from error
            losses.append(loss)
        return state._replace(epoch=number), jnp.stack(losses)

    return epoch


def scan(
    step: Callable[[Any, jax.Array, jax.Array], tuple[Any, jax.Array]],
    state: Any,
    rows: jax.Array,
    inputs: jax.Array,
    targets: jax.Array,
) -> tuple[Any, jax.Array]:
    """Takes a step with each minibatch.

    Args:
      step: ``step(state, inputs, targets) -> (state, loss)``.
      state: a pytree, what steps change.
      rows: ``(steps, batch_size)`` indices of examples.
      inputs: ``(examples, inputs)``.
      targets: ``(examples, outputs)``.

    Returns:
      The last state, and the losses, ``(steps,)``.

    Example:
      >>> def step(state, inputs, targets):
      ...     return state + 1, jnp.sum(inputs)
      >>> scan(step, 0, jnp.array([[0, 1], [2, 3]]), jnp.arange(4), jnp.arange(4))
      (Array(2, dtype=int32, weak_type=True), Array([1, 5], dtype=int32))
    """

    # Rows are gathered for some thousand examples at once: a batch at a time is slower by 15% with
    # batches of 10, all at once by 5% with batches of 128, and takes the memory of another dataset.
    def some(state, rows):
        return jax.lax.scan(lambda s, batch: step(s, *batch), state, (inputs[rows], targets[rows]))

    steps, batch_size = rows.shape
    per = min(steps, max(1, _GATHERED // batch_size))
    whole = steps // per
    state, losses = jax.lax.scan(some, state, rows[: whole * per].reshape(whole, per, batch_size))
    losses = losses.reshape(-1)
    if steps % per:
        state, rest = some(state, rows[whole * per :])
        losses = jnp.concatenate([losses, rest])
    return state, losses


def _last_line_outside_jax(error: BaseException) -> str:
    inside = str(Path(jax.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    frame = [each for each in frames if not each.filename.startswith(inside)][-1]
    return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
