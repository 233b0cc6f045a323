"""Training: an epoch is one compiled scan over minibatches that are drawn on the device."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet import backprop, mlp
from jaxnet.data import Split
from jaxnet.mlp import Params

ValueAndGrad = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, Params]]

GRADIENTS: dict[str, ValueAndGrad] = {
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
      index: counts from 1.
      state: after the epoch; valid until the next epoch begins, which reuses its memory.
      train_loss: mean of the minibatches' losses, each before its update.
      validation_loss: after the epoch; None without a validation set.
      validation_accuracy: likewise.
      seconds: of wall clock, evaluation included, compilation not.
    """

    index: int
    state: TrainState
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class Diverged(ArithmeticError):
    """The loss became NaN or infinite; the message names epoch and step."""


def make_optimizer(
    name: str, learning_rate: float, *, decay_steps: int | None = None
) -> optax.GradientTransformation:
    """Returns an optax optimizer by name.

    Args:
      name: ``"sgd"``, ``"momentum"`` (0.9), ``"adam"`` or ``"adamw"``, with optax's defaults.
      learning_rate: positive.
      decay_steps: number of steps over which the learning rate falls to 0 along a cosine
        (Loshchilov and Hutter, ICLR 2017); None keeps it constant.

    Raises:
      ValueError: an unknown name, or a learning rate that is not positive and finite.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    rate = (
        learning_rate
        if decay_steps is None
        else optax.cosine_decay_schedule(learning_rate, decay_steps)
    )
    if name == "momentum":
        return optax.sgd(rate, momentum=0.9)
    return getattr(optax, name)(rate)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Returns the number of whole minibatches in a training set.

    Raises:
      ValueError: a batch that is empty, or larger than the training set.
    """
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch_size must be from 1 to {examples}, the size of the training set, got {batch_size}"
        )
    return examples // batch_size


def make_epoch(
    value_and_grad: ValueAndGrad, optimizer: optax.GradientTransformation, batch_size: int
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the jitted ``epoch(state, key, index, inputs, targets) -> (state, losses)``.

    ``key`` and ``index`` draw the order of the examples; the remainder that fills no minibatch is
    left out, others every time. A batch as large as the training set is taken as it lies, without a
    copy. ``losses``, ``(steps,)``, are the minibatches' before their updates. The memory of
    ``state`` is donated.
    """

    def step(state: TrainState, batch: tuple[jax.Array, jax.Array]):
        loss, gradient = value_and_grad(state.params, *batch)
        updates, optimizer_state = optimizer.update(
            gradient, state.optimizer_state, state.params
        )
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, optimizer_state), loss

    def epoch(state, key, index, inputs, targets):
        examples = inputs.shape[0]
        steps = steps_per_epoch(examples, batch_size)
        if batch_size == examples:
            state, loss = step(state, (inputs, targets))
            return state, loss[None]
        order = jax.random.permutation(jax.random.fold_in(key, index), examples)
        batches = order[: steps * batch_size].reshape(steps, batch_size)
        return jax.lax.scan(lambda s, rows: step(s, (inputs[rows], targets[rows])), state, batches)

    return jax.jit(epoch, donate_argnums=0)


@jax.jit
def evaluate(
    params: Params, inputs: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns loss and accuracy from one forward pass.

    Arguments and errors are those of `mlp.loss`.
    """
    mlp.check(params, inputs, targets)
    outputs = mlp.forward(params, inputs)
    right = mlp.classes(outputs) == mlp.classes(targets)
    return mlp.mean_squared_error(outputs, targets), jnp.mean(right, dtype=outputs.dtype)


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
) -> Fit:
    """Compiles a training run and returns it, to be run epoch by epoch::

        run = train.fit(params, dataset.train, key=key, optimizer=optax.adam(1e-3), batch_size=128,
                        epochs=10)
        for epoch in run.epochs:
            print(epoch.index, epoch.train_loss)

    Args:
      params: where to start; not changed.
      train: examples to take gradients of.
      validation: examples to evaluate after every epoch, if any.
      key: draws the order of the examples; epoch i uses ``fold_in(key, i)``.
      optimizer: any optax transformation.
      value_and_grad: of the loss; hand-written by default, ``GRADIENTS["auto"]`` is JAX's.
      batch_size: from 1 to the number of examples.
      epochs: 1 or more.

    Raises:
      ValueError: shapes that do not fit, or a batch size or a number of epochs out of range.
      TypeError: dtypes that do not fit.
      Diverged: while running, when the loss is not finite.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be 1 or more, got {epochs}")
    steps = steps_per_epoch(len(train.inputs), batch_size)
    start = time.perf_counter()
    # A copy, for the first epoch takes over the memory of its state.
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    state = TrainState(params, optimizer.init(params))
    data = jax.device_put((train.inputs, train.targets))
    held_out = validation and jax.device_put((validation.inputs, validation.targets))
    # Compiled ahead, so that a run has one program: shapes that differ are errors, not compilations.
    run_epoch = (
        make_epoch(value_and_grad, optimizer, batch_size)
        .lower(state, key, np.uint32(1), *data)
        .compile()
    )
    run_evaluate = held_out and evaluate.lower(params, *held_out).compile()
    compile_seconds = time.perf_counter() - start

    def run(state: TrainState) -> Iterator[Epoch]:
        for index in range(1, epochs + 1):
            start = time.perf_counter()
            state, losses = run_epoch(state, key, np.uint32(index), *data)
            evaluation = run_evaluate(state.params, *held_out) if run_evaluate else (None, None)
            losses, evaluation = jax.device_get((losses, evaluation))
            if not np.isfinite(losses).all():
                step = int(np.argmin(np.isfinite(losses)))
                raise Diverged(
                    f"the loss is {losses[step]} in epoch {index}, step {step + 1} of {steps}"
                )
            loss, accuracy = (None if value is None else float(value) for value in evaluation)
            train_loss = float(np.mean(losses, dtype=np.float64))
            yield Epoch(index, state, train_loss, loss, accuracy, time.perf_counter() - start)

    return Fit(run(state), compile_seconds)
