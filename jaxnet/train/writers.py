"""What listens to a run: the terminal, the record. A writer is called with each event."""

import collections
import sys
import time
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np

from jaxnet import checkpoint, gradcheck, mlp, record
from jaxnet.data import Dataset
from jaxnet.train.config import Config
from jaxnet.train.evaluate import Evaluation
from jaxnet.train.fit import Metrics
from jaxnet.train.loop import Audited, Compiled, EpochEnded, Event, Finished, Started
from jaxnet.types import Params

__all__ = ["RecordWriter", "Terminal"]

_LINES = 20  # about so many are printed of a run
_WORST = 24  # mistakes that are kept with their images
_MOST_CLASSES = 100  # of a confusion matrix that is kept; of 3,000 it would take 27 MB


class Terminal:
    """Shows what a run is, a bar or a line as it goes, and what came of it.

    A context manager, which closes the bar.

    Example:
      >>> from jaxnet import data
      >>> from jaxnet.train.config import resolve
      >>> from jaxnet.train.loop import run
      >>> digits = data.load("digits")
      >>> config = resolve(Config(epochs=1, check_gradients=False), digits)
      >>> with Terminal(config) as terminal:
      ...     for event in run(config, digits):
      ...         terminal(event)
      digits: 1,294 training, ...
    """

    def __init__(
        self,
        config: Config,
        *,
        say: Callable[[str], None] = print,
        began: float | None = None,
        where: str = "",
    ):
        """Begins without a word.

        Args:
          config: says how to show progress.
          say: prints a line.
          began: `time.perf_counter` when the run began; by default now.
          where: a line for the end, that says where the record is.
        """
        self._config, self._say, self._where = config, say, where
        self._began = time.perf_counter() if began is None else began
        self._reports: list[gradcheck.Report] = []
        self._uninformed_loss = np.inf
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: Event) -> None:
        """Shows an event."""
        config = self._config
        match event:
            case Started(_, dataset, params):
                share = np.mean(dataset.train.targets, axis=0, dtype=float)
                self._uninformed_loss = float(np.sum(share * (1 - share)))
                self._say(_describe_network(config, dataset, params))
            case Audited(report, images):
                self._say(f"\n{_name_of(config)} on {images} images\n\n{report}\n")
            case Compiled():
                every = config.check_gradients_every
                if every is not None and not config.check_gradients:
                    self._say(
                        f"{_name_of(config)} is audited after every {every} {config.unit}s, "
                        "not before"
                    )
                self._bar = _progress_bar(config)
            case EpochEnded(_, metrics, report):
                self._reports += [] if report is None else [report]
                self._show_epoch(metrics, report)
            case Finished():
                self._show_end(event)

    def _show_epoch(self, metrics: Metrics, report: gradcheck.Report | None) -> None:
        """Moves the bar, or prints a line: all of the lecture's, some 20 of another run's.

        An epoch after which the gradient was audited has its line, too.
        """
        validation = (
            ""
            if metrics.validation_accuracy is None
            else f"  validation loss {metrics.validation_loss:.4f}, "
            f"accuracy {metrics.validation_accuracy:.2%}"
        )
        audited = ""
        if report is not None:
            error = np.max([leaf.error for leaf in report.leaves])
            audited = f"  gradient {report.verdict}, error {error:.1e}"
        number, loss, config = metrics.epoch, metrics.train_loss, self._config
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}{validation}{audited}", refresh=False)
            self._bar.update()
        elif config.progress == "none":
            return
        elif config.preset == "lecture":
            line = "[%04d] MSE Loss: %0.3f" % (number - 1, loss)  # noqa: UP031, the slide's
            self._say(line + audited)
        elif number == 1 or number % max(1, config.epochs // _LINES) == 0 or audited:
            self._say(f"epoch {number:4d}  loss {loss:.4f}{validation}{audited}")

    def _show_end(self, end: Finished) -> None:
        unit = self._config.unit
        if self._bar is not None:
            self._bar.close()
        if end.status == "wrong gradient" and self._reports:
            self._say(
                f"\n{_name_of(self._config)} after {unit} {end.epochs}\n\n{self._reports[-1]}"
            )
        if end.test is not None:
            seconds = time.perf_counter() - self._began
            self._say(
                f"\ntest accuracy {end.test.accuracy:.2%}, loss {end.test.loss:.4f} "
                f"(training {end.train_loss:.4f})\n"
                f"{end.epochs:,} {unit}s, {end.steps:,} steps: compilation "
                f"{end.compile_seconds:.1f} s, training {end.train_seconds:.1f} s, "
                f"whole run {seconds:.1f} s"
            )
            if self._where:
                self._say(self._where)
            if end.train_loss is not None and end.train_loss >= self._uninformed_loss:
                self._say(
                    f"nothing was learned: {self._uninformed_loss:.2f} is the loss of the same "
                    "outputs for all images; try another learning rate, or more epochs"
                )
            if self._reports:
                self._say(_describe_audits(self._reports))
        if end.status != "finished":
            self._say(describe_stop(self._config, end))


class RecordWriter:
    """Keeps a run: metrics as it goes; parameters, mistakes, summary and pictures at its end.

    Example:
      >>> import tempfile
      >>> with record.Record(tempfile.mkdtemp(), {}) as opened:
      ...     writer = RecordWriter(opened)
    """

    def __init__(
        self,
        opened: record.Record,
        *,
        began: float | None = None,
        draw: Callable[[record.Record], Any] | None = None,
    ):
        """Begins.

        Args:
          opened: the record.
          began: `time.perf_counter` when the run began; by default now.
          draw: draws the pictures of a finished record.
        """
        self._record, self._draw = opened, draw
        self._began = time.perf_counter() if began is None else began
        self._started: Started | None = None
        self._audited: gradcheck.Report | None = None
        self._last: gradcheck.Report | None = None

    def __call__(self, event: Event) -> None:
        """Records an event."""
        match event:
            case Started():
                self._started = event
            case Audited(report, _):
                self._audited = report
            case EpochEnded(_, metrics, report):
                self._last = report or self._last
                self._record.log(_metrics_of(metrics, report))
            case Finished() if event.epochs or event.status == "diverged":
                self._finish(event)

    def _finish(self, end: Finished) -> None:
        if self._started is None:
            raise ValueError("a run must start before it finishes")
        config, dataset, params = self._started
        summary: dict[str, Any] = {
            "status": end.status,
            "dataset": dataset.name,
            "sizes": mlp.sizes(params),
            "parameters": _count(params),
            "epochs": end.epochs,
            "steps": end.steps,
            "unit": config.unit,
            "devices": config.devices,
            "gradient_check": self._audited and self._audited.to_dict(),
            "environment": record.environment(),
            "compile_seconds": end.compile_seconds,
            "train_seconds": end.train_seconds,
            "total_seconds": time.perf_counter() - self._began,
        }
        if end.status == "wrong gradient" and self._last is not None:
            summary["failed_gradient_check"] = {"epoch": end.epochs, **self._last.to_dict()}
        if end.state is not None and end.test is not None:
            checkpoint.save(self._record.path(record.PARAMS), end.state.params)
            worst, confusion = _worst_mistakes(end.test, dataset), end.test.confusion
            record.write_json(self._record.path(record.MISTAKES), worst)
            summary |= {
                "test_accuracy": end.test.accuracy,
                "test_loss": end.test.loss,
                "train_loss": end.train_loss,
                "test_examples": len(dataset.test.inputs),
                "image_shape": dataset.image_shape,
                "confusion": confusion.tolist() if len(confusion) <= _MOST_CLASSES else None,
            }
        self._record.finish(summary)
        if end.state is not None and self._draw is not None:
            self._draw(self._record)
            summary["total_seconds"] = time.perf_counter() - self._began
            self._record.finish(summary)


def describe_stop(config: Config, end: Finished) -> str:
    """Returns why a run did not finish."""
    planned = f"{config.epochs:,} {config.unit}s"
    return f"stopped after {end.epochs:,} of {planned}: {end.message}"


def _describe_network(config: Config, dataset: Dataset, params: Params) -> str:
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    images = ", ".join(f"{len(s.inputs):,} {name}" for name, s in splits.items() if s is not None)
    shape = "-".join(map(str, mlp.sizes(params)))
    compute = "" if config.compute_dtype is None else f", products in {config.precision},"
    return (
        f"{dataset.name}: {images} images; {shape}, {_count(params):,} parameters, "
        f"{params[0].weight.dtype}{compute} on {jax.default_backend()}"
    )


def _count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _name_of(config: Config) -> str:
    return "the hand-written gradient" if config.gradient == "hand" else "the gradient of jax.grad"


def _progress_bar(config: Config) -> Any:
    """Returns a bar, or None where lines are printed or nobody watches."""
    if config.progress == "bar" or (config.progress == "auto" and sys.stderr.isatty()):
        import tqdm

        return tqdm.tqdm(total=config.epochs, unit=config.unit, dynamic_ncols=True)
    return None


def _describe_audits(reports: list[gradcheck.Report]) -> str:
    counts = collections.Counter(report.verdict for report in reports)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    errors = [leaf.error for report in reports for leaf in report.leaves]
    return f"audits of the gradient: {verdicts}; largest error {np.max(errors):.1e}"


def _metrics_of(metrics: Metrics, report: gradcheck.Report | None) -> dict[str, Any]:
    found = metrics._asdict()
    if report is not None:
        found["gradient"] = {
            "verdict": report.verdict,
            "tolerance": report.tolerance,
            "errors": {leaf.path: leaf.error for leaf in report.leaves},
        }
    return found


def _worst_mistakes(test: Evaluation, dataset: Dataset) -> list[dict[str, Any]]:
    labels = dataset.test.labels
    return [
        {
            "index": index,
            "label": labels[index],
            "predicted": test.predicted[index],
            "image": _as_uint8(dataset.test.inputs[index]).reshape(dataset.image_shape),
        }
        for index in test.mistakes[:_WORST]
    ]


def _as_uint8(pixels: np.ndarray) -> np.ndarray:
    return (pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels)).astype(np.uint8)
