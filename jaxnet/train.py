"""Training: an epoch is one compiled scan over minibatches that are drawn on the device."""

import math
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet import backprop, batches, mlp
from jaxnet.batches import Devices, ValueAndGrad
from jaxnet.data import Split
from jaxnet.mlp import Params

GRADIENTS: dict[str, Callable[..., tuple[jax.Array, Params]]] = {
    "hand": backprop.value_and_grad,
    "auto": jax.value_and_grad(mlp.loss),
}
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")


class TrainState(NamedTuple):
    """All that a step of training changes.

    Attributes:
      params: the network's layers.
      optimizer_state: what the optax optimizer keeps.
    """

    params: Params
    optimizer_state: optax.OptState


class Epoch(NamedTuple):
    """One pass over the training set.

    Attributes:
      number: counts from 1.
      state: after the epoch; valid until the next epoch begins, which reuses its memory.
      train_loss: mean of the minibatches' losses, each before its update.
      validation_loss: after the epoch; None without a validation set.
      validation_accuracy: likewise.
      seconds: of wall clock, evaluation included, compilation not.
    """

    number: int
    state: TrainState
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class DivergedError(ArithmeticError):
    """Loss or parameters became NaN or infinite; the message names epoch and step."""


def make_optimizer(
    name: str,
    learning_rate: float,
    *,
    decay_steps: int | None = None,
    warmup_steps: int = 0,
    beta2: float = 0.999,
) -> optax.GradientTransformation:
    """Returns an optax optimizer by name.

    Args:
      name: ``"sgd"``, ``"momentum"`` (0.9), ``"adam"`` or ``"adamw"``, with optax's defaults.
      learning_rate: positive; the largest.
      decay_steps: number of steps at whose end the learning rate has fallen to 0 along a cosine
        (Loshchilov and Hutter, ICLR 2017); None keeps it constant.
      warmup_steps: of these, how many it rises from 0 first, in a straight line.
      beta2: decay of squared gradients in ``"adam"`` and ``"adamw"``, in [0, 1).

    Raises:
      ValueError: an unknown name, a learning rate that is not positive and finite, a warm-up that
        is not shorter than the decay, or ``beta2`` outside [0, 1).
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    if not 0 <= beta2 < 1:
        raise ValueError(f"beta2 must be in [0, 1), got {beta2}")
    if warmup_steps and not 0 < warmup_steps < (decay_steps or 0):
        raise ValueError(
            f"warmup_steps must be from 0 to below decay_steps, {decay_steps}, got {warmup_steps}"
        )
    rate = learning_rate
    if warmup_steps:
        rate = optax.warmup_cosine_decay_schedule(0, rate, warmup_steps, decay_steps or 0)
    elif decay_steps is not None:
        rate = optax.cosine_decay_schedule(rate, decay_steps)
    if name in ("sgd", "momentum"):
        return optax.sgd(rate, momentum=0.9 if name == "momentum" else None)
    return getattr(optax, name)(rate, b2=beta2)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Returns the number of whole minibatches in a training set.

    Raises:
      ValueError: a batch that is empty, or larger than the training set.
    """
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size must be from 1 to the {examples} examples of the training set, "
            f"got {batch_size}"
        )
    return examples // batch_size


def make_epoch(
    value_and_grad: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    chunk: int | None = None,
    devices: Devices | None = None,
) -> jax.stages.Wrapped:
    """Returns the jitted ``epoch(state, key, number, inputs, targets) -> (state, losses)``.

    ``key`` and ``number`` draw the order of the examples; those that fill no minibatch are left
    out, others every time. A batch as large as the training set is taken as it lies, without a
    copy. A gradient takes ``chunk`` rows of a batch at a time, by default all, on each of the
    ``devices`` that share a batch (`batches.share`), where there are several. ``inputs`` may be
    bytes. ``losses``, ``(steps,)``, are the minibatches' before their updates. The memory of
    ``state`` is donated.

    It raises `ValueError`, when it is traced, for inputs and targets of different lengths, or a
    batch that is empty or larger than the training set.
    """
    step = _make_step(value_and_grad, optimizer, batch_size if chunk is None else chunk, devices)

    def epoch(state, key, number, inputs, targets):
        batches.check_rows(inputs, targets)
        steps_per_epoch(len(inputs), batch_size)
        if batch_size == len(inputs):
            state, loss = step(state, inputs, targets)
            return state, loss[None]
        rows = batches.draw(key, number, len(inputs), batch_size)
        return batches.scan(step, state, rows, inputs, targets)

    return jax.jit(epoch, donate_argnums=0)


def make_epochs(
    value_and_grad: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    chunk: int | None = None,
    devices: Devices | None = None,
    *,
    count: int,
) -> jax.stages.Wrapped:
    """Returns what `make_epoch` does for ``count`` epochs, as one loop on the device.

    ``number`` is that of the first; ``losses`` are ``(count, steps)``. Where a step takes less time
    than the host takes to ask for it, as the lecture's does on a GPU, nothing else keeps the device
    busy.
    """
    epoch = make_epoch(value_and_grad, optimizer, batch_size, chunk, devices)

    def epochs(state, key, number, inputs, targets):
        numbers = number + jnp.arange(count, dtype=jnp.uint32)
        return jax.lax.scan(lambda s, each: epoch(s, key, each, inputs, targets), state, numbers)

    return jax.jit(epochs, donate_argnums=0)


def make_debug_epoch(
    value_and_grad: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    chunk: int | None = None,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns what `make_epoch` does, a step at a time, and looks for NaN after each.

    JAX then names the operation that made it, where of a scan it would name the scan.

    The function raises `DivergedError` that names epoch, step, operation and line.
    """
    chunk = batch_size if chunk is None else chunk
    step = jax.jit(_make_step(value_and_grad, optimizer, chunk))

    def epoch(state, key, number, inputs, targets):
        losses = []
        full = batch_size == len(inputs)
        rows = [...] if full else batches.draw(key, number, len(inputs), batch_size)
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
        return state, jnp.stack(losses)

    return epoch


def _last_line_outside_jax(error: BaseException) -> str:
    inside = str(Path(jax.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    frame = [each for each in frames if not each.filename.startswith(inside)][-1]
    return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"


def _make_step(value_and_grad, optimizer, chunk, devices=None):
    optimizer = optax.with_extra_args_support(optimizer)  # some ask for the loss
    value_and_grad = batches.accumulate(batches.from_bytes(value_and_grad), chunk)
    if devices is not None:
        value_and_grad = batches.share(value_and_grad, devices)

    def step(state, inputs, targets):
        loss, gradient = value_and_grad(state.params, inputs, targets)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.params, value=loss, grad=gradient
        )
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, optimizer_state), loss

    return step


@jax.jit
def loss_and_accuracy(
    params: Params, inputs: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns loss and accuracy from one forward pass.

    Arguments and errors are those of `mlp.loss`; inputs may be bytes.
    """
    inputs, targets = batches.as_floats(inputs, targets, params[0].weight.dtype)
    mlp.check(params, inputs, targets)
    outputs = mlp.forward(params, inputs)
    right = mlp.classes(outputs) == mlp.classes(targets)
    return mlp.mean_squared_error(outputs, targets), jnp.mean(right, dtype=outputs.dtype)


class Evaluation(NamedTuple):
    """What a network makes of a test set.

    Attributes:
      loss: as `mlp.loss`.
      accuracy: share of right answers.
      confusion: ``(classes, classes)`` counts; rows are true classes, columns predicted ones.
      predicted: ``(n,)`` predicted classes.
      mistakes: indices of the examples that were got wrong, those with the largest error first.
    """

    loss: float
    accuracy: float
    confusion: np.ndarray
    predicted: np.ndarray
    mistakes: np.ndarray


def evaluate(params: Params, split: Split) -> Evaluation:
    """Returns loss, accuracy, confusion matrix and mistakes on examples.

    Raises:
      ValueError: shapes that do not fit, or no examples.
      TypeError: dtypes that do not fit.
    """
    _check_split(params, split)
    parts = range(0, len(split.inputs), _EVALUATED)  # so that memory does not grow with the set
    outputs = np.concatenate(
        [np.asarray(_outputs(params, split.inputs[at : at + _EVALUATED])) for at in parts]
    )
    predicted, labels = np.asarray(mlp.classes(jnp.asarray(outputs))), split.labels
    errors = np.sum((outputs.astype(np.float64) - split.targets) ** 2, axis=1)
    classes = split.targets.shape[1]
    pairs = np.bincount(labels * classes + predicted, minlength=classes**2)
    wrong = np.flatnonzero(predicted != labels)
    return Evaluation(
        loss=float(np.mean(errors)),
        accuracy=float(np.mean(predicted == labels)),
        confusion=pairs.reshape(classes, classes),
        predicted=predicted,
        mistakes=wrong[np.argsort(-errors[wrong], kind="stable")],
    )


_EVALUATED = 10_000  # examples at a time


@jax.jit
def _outputs(params: Params, inputs: jax.Array) -> jax.Array:
    return mlp.forward(params, batches.as_float(inputs, params[0].weight.dtype))


def _check_split(params: Params, split: Split) -> None:
    """Raises what `mlp.check` does; of bytes, what it would of the floats that they stand for."""
    dtype = params[0].weight.dtype
    as_floats = [
        np.broadcast_to(np.zeros((), dtype), array.shape) if array.dtype == np.uint8 else array
        for array in split
    ]
    mlp.check(params, *as_floats)


@jax.jit
def _all_finite(tree) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


class Fit(NamedTuple):
    """Training that is compiled and ready to run.

    Attributes:
      epochs: yields an `Epoch` at a time, as each is trained.
      compile_seconds: time that compilation took.
    """

    epochs: Iterator[Epoch]
    compile_seconds: float


def fit(
    params: Params,
    train: Split,
    validation: Split | None = None,
    *,
    key: jax.Array,
    optimizer: optax.GradientTransformation,
    value_and_grad: ValueAndGrad = backprop.value_and_grad,
    batch_size: int,
    epochs: int,
    chunk: int | None = None,
    devices: Devices | None = None,
    debug_nans: bool = False,
) -> Fit:
    """Compiles a training run and returns it, to be run epoch by epoch::

        run = train.fit(params, dataset.train, key=key, optimizer=optax.adam(1e-3), batch_size=128,
                        epochs=10)
        for epoch in run.epochs:
            print(epoch.number, epoch.train_loss)

    Args:
      params: where to start; not changed.
      train: examples to take gradients of.
      validation: examples to evaluate after every epoch, if any.
      key: draws the order of the examples; epoch i uses ``fold_in(key, i)``.
      optimizer: an optax transformation that needs no more than gradient, parameters and loss.
      value_and_grad: of a loss that is a mean over the batch, parts of which it may be given (see
        ``chunk``); hand-written by default, ``GRADIENTS["auto"]`` is JAX's.
      batch_size: from 1 to the number of examples.
      epochs: 1 or more.
      chunk: rows of a batch that the gradient takes at a time, up to ``batch_size``; None means
        what suits device, widths and batch, `batches.rows_per_chunk`, supposing products in the
        parameters' own precision.
      devices: those that share each batch evenly, `batches.share`; None means JAX's default one.
      debug_nans: whether to look for NaN after every step and name the operation; slower.

    Raises:
      ValueError: shapes that do not fit, or a batch size, a chunk or a number of epochs out of
        range, or devices that do not divide the batch, or more than one with ``debug_nans``.
      TypeError: dtypes that do not fit.
      DivergedError: while running, when the loss is not finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be 1 or more, got {epochs}")
    for split in (train, validation):
        if split is not None:
            _check_split(params, split)
    steps = steps_per_epoch(len(train.inputs), batch_size)
    count = 1 if devices is None else len(devices)
    if count < 1 or batch_size % count:
        raise ValueError(f"devices must divide the {batch_size} rows of a batch, got {count}")
    if debug_nans and count > 1:
        raise ValueError(f"debug_nans looks at one device, got {count}")
    if chunk is None:
        chunk = batches.rows_per_chunk(params, batch_size, jax.default_backend(), count)
    if not 1 <= chunk <= batch_size:
        raise ValueError(f"chunk must be from 1 to the {batch_size} rows of a batch, got {chunk}")
    start = time.perf_counter()
    # Copies, for the first epoch takes over the memory of its state, leaf by leaf.
    state = TrainState(params, optimizer.init(params))
    state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)
    data = train.inputs, train.targets
    if devices is None:
        data = jax.device_put(data)
    else:
        state, key = batches.place((state, key), devices, rows=False)
        data = batches.place(data, devices, rows=batch_size == len(train.inputs))
    first = None if devices is None else devices[0]
    held_out = () if validation is None else tuple(jax.device_put(tuple(validation), first))
    if debug_nans:
        run_epoch = make_debug_epoch(value_and_grad, optimizer, batch_size, chunk)
    else:
        # Compiled ahead, so that a run is one program: other shapes are errors, not compilations.
        epoch = make_epoch(value_and_grad, optimizer, batch_size, chunk, devices)
        run_epoch = epoch.lower(state, key, np.uint32(1), *data).compile()
    run_validation = loss_and_accuracy.lower(params, *held_out).compile() if held_out else None
    _all_finite(params)  # compiles it
    compile_seconds = time.perf_counter() - start

    def run(state: TrainState) -> Iterator[Epoch]:
        for number in range(1, epochs + 1):
            start = time.perf_counter()
            state, losses = run_epoch(state, key, jax.device_put(np.uint32(number)), *data)
            found = jax.device_put(state.params, first)
            metrics = run_validation(found, *held_out) if run_validation else (None, None)
            sound = _all_finite(found)
            losses, metrics, sound = jax.device_get((losses, metrics, sound))  # the only wait
            finite = np.isfinite(losses)
            step = int(np.argmin(finite)) if not finite.all() else steps - 1
            where = f"in epoch {number}, step {step + 1} of {steps}"
            if not finite.all():
                raise DivergedError(f"the loss is {losses[step]} {where}")
            if not sound:  # by the last update, which no loss has seen yet
                raise DivergedError(f"the parameters are not finite after the update {where}")
            train_loss = float(np.mean(losses, dtype=np.float64))
            loss, accuracy = (None if value is None else float(value) for value in metrics)
            yield Epoch(number, state, train_loss, loss, accuracy, time.perf_counter() - start)

    return Fit(run(state), compile_seconds)
