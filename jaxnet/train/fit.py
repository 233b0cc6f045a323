"""Training: a compiled run, epoch by epoch or to its end."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet import backprop, mlp
from jaxnet.data import Split
from jaxnet.train.epoch import (
    DivergedError,
    TrainState,
    init_state,
    make_debug_epoch,
    make_epoch,
)
from jaxnet.train.evaluate import check_split, loss_and_accuracy
from jaxnet.train.microbatch import microbatch_size
from jaxnet.train.order import steps_per_epoch
from jaxnet.train.sharding import replicate, shard_rows
from jaxnet.types import Devices, Params, ValueAndGrad

__all__ = ["GRADIENTS", "Fit", "Metrics", "Trainer", "fit", "prepare"]

GRADIENTS: dict[str, Callable[..., tuple[jax.Array, Params]]] = {
    "hand": backprop.value_and_grad,
    "auto": jax.value_and_grad(mlp.loss),
}

# The loss of a network whose sigmoids are all saturated is finite, however large its parameters. In
# float32, steps of 1 are lost beside numbers of this size.
_LARGEST_PARAMETER = 1e7


class Metrics(NamedTuple):
    """What was measured of an epoch.

    Attributes:
      epoch: its number, from 1.
      train_loss: mean of the minibatches' losses, each before its update.
      validation_loss: after the epoch; None without a validation set.
      validation_accuracy: after the epoch; None without a validation set.
      seconds: of wall clock, with evaluation, without compilation.
    """

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class Trainer(NamedTuple):
    """Training that is compiled and ready to run; made by `prepare`.

    Attributes:
      state: where it starts.
      steps: minibatches of an epoch.
      compile_seconds: time that compilation took.
      advance: ``advance(state) -> (state, metrics)`` trains one epoch.
    """

    state: TrainState
    steps: int
    compile_seconds: float
    advance: Callable[[TrainState], tuple[TrainState, Metrics]]

    def epochs(self, count: int) -> Iterator[tuple[TrainState, Metrics]]:
        """Trains ``count`` epochs from ``state`` on, and yields state and metrics after each.

        States are arrays like others: keep them as long as you like. Each call starts anew.

        Raises:
          DivergedError: when the loss is not finite.

        Example:
          >>> from jaxnet import data
          >>> digits = data.load("digits")
          >>> trainer = prepare(
          ...     mlp.init(jax.random.key(0), (64, 10)), digits.train,
          ...     key=jax.random.key(1), optimizer=optax.adam(0.01), batch_size=64)
          >>> for state, metrics in trainer.epochs(2):
          ...     print(metrics.epoch, metrics.train_loss < 3)
          1 True
          2 True
        """
        state = self.state
        for _ in range(count):
            state, metrics = self.advance(state)
            yield state, metrics


class Fit(NamedTuple):
    """What came of training.

    Attributes:
      state: after the last epoch; `fit` goes on from it.
      best: after the epoch with the highest validation accuracy, the first of equals; without a
        validation set, the same as ``state``.
      history: the metrics of each epoch.
      compile_seconds: time that compilation took.
    """

    state: TrainState
    best: TrainState
    history: tuple[Metrics, ...]
    compile_seconds: float

    @property
    def params(self) -> Params:
        """The parameters after the last epoch."""
        return self.state.params


def fit(
    start: Params | TrainState,
    train: Split,
    validation: Split | None = None,
    *,
    key: jax.Array | None = None,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    epochs: int,
    value_and_grad: ValueAndGrad = backprop.value_and_grad,
    microbatch: int | None = None,
    devices: Devices | None = None,
    debug_nans: bool = False,
    on_epoch: Callable[[TrainState, Metrics], Any] | None = None,
) -> Fit:
    """Trains a network and returns what came of it.

    To decide after each epoch what to do next, take `prepare` and loop over `Trainer.epochs`.

    Args:
      start: parameters, or the state of an earlier run, from which this one goes on exactly.
      train: examples to take gradients of, uint8 or of the parameters' dtype.
      validation: examples to evaluate after every epoch, if any.
      key: draws the order of examples; a state brings its own.
      optimizer: an optax transformation that needs no more than gradient, parameters and loss.
      batch_size: from 1 to the number of examples.
      epochs: how many to train, 1 or more; of a state, how many further ones.
      value_and_grad: of a loss that is a mean over the batch; hand-written by default,
        ``GRADIENTS["auto"]`` is JAX's.
      microbatch: rows that the gradient is computed of at a time, up to ``batch_size``; None means
        what suits device, widths and batch (`microbatch_size`).
      devices: those that each batch is sharded over; None means JAX's default one.
      debug_nans: whether to look for NaN after every step and name the operation; slower.
      on_epoch: called with state and metrics after each epoch, to print them, say.

    Raises:
      ValueError: shapes that do not fit; a batch size, a microbatch or a number of epochs out of
        range; devices that do not divide the batch, or more than one with ``debug_nans``.
      TypeError: dtypes that do not fit, or arguments of another kind.
      DivergedError: when the loss is not finite.

    Example:
      >>> from jaxnet import data
      >>> digits = data.load("digits")
      >>> found = fit(
      ...     mlp.init(jax.random.key(0), (64, 10)), digits.train, digits.validation,
      ...     key=jax.random.key(1), optimizer=optax.adam(0.01), batch_size=64, epochs=2)
      >>> [metrics.epoch for metrics in found.history]
      [1, 2]
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer):
        raise TypeError(f"epochs must be an integer, got {epochs!r}")
    if epochs < 1:
        raise ValueError(f"epochs must be 1 or more, got {epochs}")
    trainer = prepare(
        start,
        train,
        validation,
        key=key,
        optimizer=optimizer,
        batch_size=batch_size,
        value_and_grad=value_and_grad,
        microbatch=microbatch,
        devices=devices,
        debug_nans=debug_nans,
    )
    state = best = trainer.state
    history, highest = [], -1.0
    for state, metrics in trainer.epochs(int(epochs)):
        history.append(metrics)
        if metrics.validation_accuracy is None or metrics.validation_accuracy > highest:
            best, highest = state, metrics.validation_accuracy or 0.0
        if on_epoch is not None:
            on_epoch(state, metrics)
    return Fit(state, best, tuple(history), trainer.compile_seconds)


def prepare(
    start: Params | TrainState,
    train: Split,
    validation: Split | None = None,
    *,
    key: jax.Array | None = None,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    value_and_grad: ValueAndGrad = backprop.value_and_grad,
    microbatch: int | None = None,
    devices: Devices | None = None,
    debug_nans: bool = False,
) -> Trainer:
    """Compiles training and returns it, ready to run epoch by epoch.

    Arguments and errors are those of `fit`.

    Example:
      >>> from jaxnet import data
      >>> digits = data.load("digits")
      >>> trainer = prepare(
      ...     mlp.init(jax.random.key(0), (64, 10)), digits.train,
      ...     key=jax.random.key(1), optimizer=optax.adam(0.01), batch_size=64)
      >>> trainer.steps
      20
    """
    state = _check_start(start, key, optimizer)
    check_split("train", state.params, train)
    if validation is not None:
        check_split("validation", state.params, validation)
    steps = steps_per_epoch(len(train.inputs), batch_size)
    microbatch = _check_batch(state.params, batch_size, microbatch, devices, debug_nans)

    began = time.perf_counter()
    data: Any = train.inputs, train.targets
    first = None if devices is None else devices[0]
    if devices is None:
        state, data = jax.device_put((state, data))
    else:
        full = batch_size == len(train.inputs)
        state, data = replicate(state, devices), (shard_rows if full else replicate)(data, devices)
    held_out = () if validation is None else tuple(jax.device_put(tuple(validation), first))
    if debug_nans:
        run_epoch = make_debug_epoch(
            value_and_grad, optimizer, batch_size=batch_size, microbatch=microbatch
        )
    else:
        # Compiled ahead, so that a run is one program: other shapes are errors, not compilations.
        epoch = make_epoch(
            value_and_grad,
            optimizer,
            batch_size=batch_size,
            microbatch=microbatch,
            devices=devices,
        )
        run_epoch = epoch.lower(state, *data).compile()
    held_params = jax.device_put(state.params, first)
    validate = loss_and_accuracy.lower(held_params, *held_out).compile() if held_out else None
    _largest(held_params)  # compiles it
    compile_seconds = time.perf_counter() - began

    def advance(state: TrainState) -> tuple[TrainState, Metrics]:
        began = time.perf_counter()
        state, losses = run_epoch(state, *data)
        params = jax.device_put(state.params, first)
        found = validate(params, *held_out) if validate else (None, None)
        number, losses, found, largest = jax.device_get(  # the only wait
            (state.epoch, losses, found, _largest(params))
        )
        _check_finite(int(number), losses, float(largest))
        train_loss = float(np.mean(losses, dtype=np.float64))
        loss, accuracy = (None if value is None else float(value) for value in found)
        seconds = time.perf_counter() - began
        return state, Metrics(int(number), train_loss, loss, accuracy, seconds)

    return Trainer(state, steps, compile_seconds, advance)


def _check_start(
    start: Params | TrainState, key: jax.Array | None, optimizer: optax.GradientTransformation
) -> TrainState:
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise TypeError(
            f"optimizer must be an optax transformation, optax.adam(0.01) say, got {optimizer!r}"
        )
    if isinstance(start, TrainState):
        if key is not None:
            raise ValueError("key must be None with a TrainState, which has its own")
        mlp.check_params(start.params)
        return start
    mlp.check_params(start)
    dtype = getattr(key, "dtype", None)
    if key is None or not (
        dtype == np.uint32 or (dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key))
    ):
        raise TypeError(f"key must be a key of jax.random, got {dtype or type(key).__name__}")
    return init_state(start, optimizer, key)


def _check_batch(
    params: Params,
    batch_size: int,
    microbatch: int | None,
    devices: Devices | None,
    debug_nans: bool,
) -> int:
    """Returns the rows of a microbatch, once they, the devices and the batch fit each other."""
    count = 1 if devices is None else len(devices)
    if count < 1 or batch_size % count:
        raise ValueError(f"devices must divide the {batch_size} rows of a batch, got {count}")
    if debug_nans and count > 1:
        raise ValueError(f"debug_nans looks at one device, got {count}")
    if microbatch is None:
        return microbatch_size(params, batch_size, jax.default_backend(), devices=count)
    if isinstance(microbatch, bool) or not isinstance(microbatch, int | np.integer):
        raise TypeError(f"microbatch must be an integer, got {microbatch!r}")
    if not 1 <= microbatch <= batch_size:
        raise ValueError(
            f"microbatch must be from 1 to the {batch_size} rows of a batch, got {microbatch}"
        )
    return int(microbatch)


def _check_finite(epoch: int, losses: np.ndarray, largest: float) -> None:
    finite, steps = np.isfinite(losses), len(losses)
    if not finite.all():
        step = int(np.argmin(finite))
        raise DivergedError(
            f"the loss is {losses[step]} in epoch {epoch}, step {step + 1} of {steps}"
        )
    if not largest <= _LARGEST_PARAMETER:
        raise DivergedError(
            f"a parameter is {largest:.3g} in size after the update in epoch {epoch}, step {steps} "
            f"of {steps}; more than {_LARGEST_PARAMETER:.0e} is not trained any more"
        )


@jax.jit
def _largest(tree: Any) -> jax.Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]))
