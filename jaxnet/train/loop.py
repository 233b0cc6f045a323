"""The one training loop: it runs a resolved `Config` on a dataset, and yields what happens.

Who wants to see, keep or draw it listens to the events (`jaxnet.train.writers`)::

    for event in run(config, dataset):
        for writer in writers:
            writer(event)
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import gradcheck, mlp
from jaxnet.data import Dataset, Split
from jaxnet.data.pixels import as_floats
from jaxnet.train.config import Config
from jaxnet.train.epoch import DivergedError, TrainState
from jaxnet.train.evaluate import Evaluation, evaluate
from jaxnet.train.fit import GRADIENTS, Metrics, Trainer, prepare
from jaxnet.train.optimizer import make_optimizer
from jaxnet.train.order import steps_per_epoch
from jaxnet.types import Params, ValueAndGrad

__all__ = ["Audited", "Compiled", "EpochEnded", "Event", "Finished", "Started", "describe", "run"]

CHECK_BATCH = 256  # images on which the gradient is audited
_BFLOAT16_TOLERANCE = 0.02  # that of `gradcheck` for gradients in bfloat16


class Started(NamedTuple):
    """A network is made.

    Attributes:
      config: the run's.
      dataset: the run's.
      params: before training.
    """

    config: Config
    dataset: Dataset
    params: Params


class Audited(NamedTuple):
    """The gradient was audited before the first epoch.

    Attributes:
      report: what came of it.
      images: on which it was.
    """

    report: gradcheck.Report
    images: int


class Compiled(NamedTuple):
    """All is ready for the first epoch.

    Attributes:
      trainer: compiled.
    """

    trainer: Trainer


class EpochEnded(NamedTuple):
    """An epoch is over.

    Attributes:
      state: after it.
      metrics: of it.
      report: of the audit after it, if one was due.
    """

    state: TrainState
    metrics: Metrics
    report: gradcheck.Report | None


class Finished(NamedTuple):
    """Training is over; always the last event.

    Attributes:
      status: ``"finished"``, ``"interrupted"``, ``"diverged"`` or ``"wrong gradient"``.
      message: why, if it did not finish; otherwise empty.
      epochs: how many are done.
      steps: how many updates that is.
      state: after the last epoch; None if none is done, or if training diverged.
      test: what the trained network makes of the test set; None without a state.
      train_loss: of the trained network, on the training set.
      compile_seconds: time that compilation took.
      train_seconds: time that epochs took.
    """

    status: str
    message: str
    epochs: int
    steps: int
    state: TrainState | None
    test: Evaluation | None
    train_loss: float | None
    compile_seconds: float
    train_seconds: float


Event = Started | Audited | Compiled | EpochEnded | Finished


def run(
    config: Config, dataset: Dataset, *, stop: Callable[[], str | None] = lambda: None
) -> Iterator[Event]:
    """Trains as a configuration says, and yields what happens.

    One key makes a run: parameters, order and audits draw from ``fold_in`` of it.

    Args:
      config: resolved for the dataset (`config.resolve`).
      dataset: whose training set may be uint8.
      stop: asked after each epoch why to stop there; None to go on.

    Yields:
      `Started`; `Audited`, if the configuration asks for it; `Compiled`; `EpochEnded` for each
      epoch; and `Finished`.

    Raises:
      What `fit` does, but for `DivergedError`, which is a way to finish.

    Example:
      >>> from jaxnet import data
      >>> from jaxnet.train.config import resolve
      >>> digits = data.load("digits")
      >>> config = resolve(Config(epochs=1, check_gradients=False), digits)
      >>> [type(event).__name__ for event in run(config, digits)]
      ['Started', 'Compiled', 'EpochEnded', 'Finished']
    """
    init_key, order_key, check_key = (
        jax.random.fold_in(jax.random.key(config.seed), purpose) for purpose in range(3)
    )
    sizes = (dataset.train.inputs.shape[1], *config.hidden, dataset.train.targets.shape[1])
    params = mlp.init(init_key, sizes, scheme=config.init, bias=config.bias)
    yield Started(config, dataset, params)

    audit = _make_audit(config, dataset.train, check_key)
    if config.check_gradients:
        report = audit(params)
        yield Audited(report, min(CHECK_BATCH, len(dataset.train.inputs)))
        if report.verdict == "fail":
            yield _finish("wrong gradient", describe(report), dataset, None, 0, 0.0, None)
            return

    trainer = _prepare(config, dataset, params, order_key)
    yield Compiled(trainer)
    state, seconds = None, 0.0
    status, message, epochs = "finished", "", 0
    try:
        for state, metrics in trainer.epochs(config.epochs):
            epochs, seconds = metrics.epoch, seconds + metrics.seconds
            every = config.check_gradients_every
            due = every is not None and epochs % every == 0
            report = audit(state.params) if due else None
            yield EpochEnded(state, metrics, report)
            if report is not None and report.verdict == "fail":
                status, message = "wrong gradient", describe(report)
                break
            if epochs < config.epochs and (reason := stop()):
                status, message = "interrupted", reason
                break
    except DivergedError as error:
        status, message, state = "diverged", str(error), None
    yield _finish(status, message, dataset, state, epochs, seconds, trainer)


def describe(report: gradcheck.Report) -> str:
    """Returns in one line which leaf of a gradient does not pass; the report says why.

    Example:
      >>> describe(gradcheck.check(jnp.sum, jnp.ones(3)))
      'the gradient passes'
    """
    if report.verdict == "pass":
        return f"the {report.subject} passes"
    others = sum(leaf.verdict == report.verdict for leaf in report.leaves) - 1
    leaves = report.worst.path + (f" and {others} more" if others else "")
    if report.verdict == "fail":
        return f"the {report.subject} does not pass: {leaves}"
    return f"differences cannot tell whether the {report.subject} is right: {leaves}"


def _finish(
    status: str,
    message: str,
    dataset: Dataset,
    state: TrainState | None,
    epochs: int,
    seconds: float,
    trainer: Trainer | None,
) -> Finished:
    test = None if state is None else evaluate(state.params, dataset.test)
    train_loss = None if state is None else evaluate(state.params, dataset.train).loss
    steps = 0 if trainer is None else epochs * trainer.steps
    compiled = 0.0 if trainer is None else trainer.compile_seconds
    return Finished(status, message, epochs, steps, state, test, train_loss, compiled, seconds)


def _prepare(config: Config, dataset: Dataset, params: Params, key: jax.Array) -> Trainer:
    steps = steps_per_epoch(len(dataset.train.inputs), config.batch_size)
    decay_steps = config.epochs * steps if config.schedule == "cosine" else None
    optimizer = make_optimizer(
        config.optimizer,
        config.learning_rate,
        decay_steps=decay_steps,
        warmup_steps=math.floor(config.warmup * (decay_steps or 0)),
        beta2=config.beta2,
    )
    return prepare(
        params,
        dataset.train,
        dataset.validation,
        key=key,
        optimizer=optimizer,
        batch_size=config.batch_size,
        value_and_grad=_gradient_of(config),
        microbatch=config.microbatch,
        devices=None if config.devices == 1 else jax.devices()[: config.devices],
        debug_nans=config.debug_nans,
    )


def _gradient_of(config: Config) -> ValueAndGrad:
    gradient, dtype = GRADIENTS[config.gradient], config.compute_dtype
    return gradient if dtype is None else functools.partial(gradient, precision=dtype)


def _make_audit(
    config: Config, examples: Split, key: jax.Array
) -> Callable[[Params], gradcheck.Report]:
    """Returns the audit of the gradient that trains on real images, compiled once for a run."""
    images = min(CHECK_BATCH, len(examples.inputs))
    inputs, targets = (jnp.asarray(np.asarray(array[:images])) for array in examples)
    arrays = as_floats(inputs, targets, jnp.result_type(float))
    options: dict[str, Any] = (
        {} if config.compute_dtype is None else {"tolerance": _BFLOAT16_TOLERANCE}
    )
    audit = gradcheck.make_check(mlp.loss, **options)
    value_and_grad = _gradient_of(config)
    return lambda params: audit(
        params, *arrays, gradient=lambda *args: value_and_grad(*args)[1], key=key
    )
