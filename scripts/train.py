"""Trains the sigmoid network by a backward pass written by hand, and records the run.

  python scripts/train.py                                    the embedded digits, in seconds
  python scripts/train.py --dataset mnist                    784-256-128-10 on MNIST
  python scripts/train.py --preset fast                      98% of MNIST in seconds
  python scripts/train.py --preset lecture                   the lecture's program, in 15 minutes
  python scripts/train.py --preset lecture --iterations 100  its beginning

Exit status: 0 after a run; 1 if the gradient is wrong or the loss stops being finite; 2 for bad
input; 130 after Ctrl-C, which keeps the record of what was done.
"""

import gc
import signal
import time

START = time.perf_counter()  # before the imports: whoever waits for a run waits for them too
signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among them ends without a traceback
gc.disable()  # until they are there: nothing of them is garbage, and the search takes an eighth

import argparse
import collections
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cli
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxnet import batches, data, gradcheck, mlp, record, train

DEFAULTS: dict[str, Any] = {
    "dataset": "digits",
    "preset": None,
    "bias": True,
    "init": "glorot",
    "gradient": "hand",
    "precision": "float32",
    "chunk": None,
    "devices": 1,
    "optimizer": "adam",
    "schedule": "cosine",
    "warmup": 0.0,
    "beta2": 0.999,
    "validation_split": 0.1,
    "seed": 0,
    "platform": None,
    "x64": False,
    "check_gradients": True,
    "check_gradients_every": None,
    "debug_nans": False,
    "progress": "auto",
    "data_dir": None,
    "manual_dir": None,
}
# Chosen on the validation splits; results/README.md shows how.
SMALL: dict[str, Any] = {"hidden": (64,), "learning_rate": 0.01, "batch_size": 32, "epochs": 100}
LARGE: dict[str, Any] = {
    "hidden": (256, 128),
    "learning_rate": 0.004,
    "batch_size": 64,
    "epochs": 25,
}
SMALL_IMAGES = 10_000
PRECISIONS = ("float32", "bfloat16")
BFLOAT16_TOLERANCE = 0.02  # that of `gradcheck` for gradients in bfloat16
# Slide "Vectorized weight updates".
LECTURE: dict[str, Any] = {
    "dataset": "mnist",
    "devices": None,  # as many as are worth it
    "hidden": (256, 128),
    "bias": False,
    "init": "lecture",
    "optimizer": "sgd",
    "schedule": "constant",
    "epochs": 5_000,
    "validation_split": 0.0,
    "check_gradients": False,
    "progress": "lines",
}
# 98% of MNIST in the fewest seconds, likewise chosen; results/benchmark/README.md.
FAST: dict[str, Any] = {
    "dataset": "mnist",
    "hidden": (256, 128),
    "precision": "bfloat16",
    "learning_rate": 0.015,
    "warmup": 0.2,
    "beta2": 0.95,
    "batch_size": 256,
    "epochs": 10,
    "validation_split": 0.0,
    "check_gradients": False,
}
PRESETS: dict[str | None, dict[str, Any]] = {None: {}, "lecture": LECTURE, "fast": FAST}
LECTURE_RATE = 1e-5  # on a gradient summed over the images, without the factor 2
CHECK_BATCH = 256  # images on which the gradients are compared
WORST = 24  # mistakes that are kept with their images

Audit = Callable[[mlp.Params], gradcheck.Report]


@dataclasses.dataclass(frozen=True)
class Config:
    """A run, as its flags, its preset and its dataset make it."""

    dataset: str
    preset: str | None
    hidden: tuple[int, ...]
    bias: bool
    init: str
    gradient: str
    precision: str
    chunk: int | None
    devices: int
    optimizer: str
    schedule: str
    warmup: float
    beta2: float
    learning_rate: float
    batch_size: int
    epochs: int
    validation_split: float
    seed: int
    platform: str | None
    x64: bool
    check_gradients: bool
    check_gradients_every: int | None
    debug_nans: bool
    progress: str
    out: Path
    data_dir: Path | None
    manual_dir: Path | None


def parse(argv: list[str] | None = None) -> dict[str, Any]:
    """Returns the configuration as far as it does not depend on the data.

    Exits with status 2 and one line on standard error if the command line is wrong.
    """
    parser = cli.Parser(__doc__, argument_default=argparse.SUPPRESS)  # only what is given
    add = parser.add_argument
    cli.add_data_flags(parser)
    add(
        "--preset",
        choices=("lecture", "fast"),
        help="lecture: its program; fast: 98%% of MNIST soon",
    )
    add("--iterations", type=cli.positive_integer, help="how many of the lecture's (5000)")
    cli.add_network_flags(parser)
    add("--gradient", choices=tuple(train.GRADIENTS), help="by hand (default) or jax.grad")
    add("--precision", choices=PRECISIONS, help="of the factors of products (float32)")
    add("--chunk", type=cli.positive_integer, help="rows of a batch at a time (what suits)")
    add("--devices", type=cli.positive_integer, help="that share a batch; CPU cores, too (1)")
    add("--optimizer", choices=train.OPTIMIZERS, help="of optax (adam)")
    add("--schedule", choices=("cosine", "constant"), help="of the learning rate (cosine)")
    add("--warmup", type=cli.share, help="share of the steps in which the rate rises first (0)")
    add("--beta2", type=cli.share, help="Adam's decay of squared gradients (0.999)")
    add("--learning-rate", type=cli.positive_number, help="by default what suits the dataset")
    add("--batch-size", type=cli.positive_integer, help="likewise")
    add("--epochs", type=cli.positive_integer, help="likewise")
    add("--validation-split", type=cli.share, help="share of the training set (0.1)")
    add("--x64", action="store_true", help="compute in float64")
    add(
        "--check-gradients",
        action=argparse.BooleanOptionalAction,
        help="audit the gradient that trains before the first epoch (unless --preset)",
    )
    add(
        "--check-gradients-every",
        type=cli.positive_integer,
        metavar="N",
        help="audit it after every N epochs too, and stop if it is wrong",
    )
    add("--debug-nans", action="store_true", help="stop at the operation that makes a NaN (slow)")
    add("--progress", choices=("auto", "bar", "lines", "none"), help="auto: a bar on a terminal")
    add("--out", type=Path, help="folder of the record (results/<dataset>)")
    given = vars(parser.parse_args(argv))
    if "iterations" in given:
        if given.get("preset") != "lecture":
            parser.error("argument --iterations: needs --preset lecture; or use --epochs")
        if "epochs" in given:
            parser.error("argument --iterations: not allowed with argument --epochs")
        given["epochs"] = given.pop("iterations")
    if "warmup" in given and given.get("schedule") == "constant":
        parser.error("argument --warmup: not allowed with --schedule constant")
    if given.get("preset") == "lecture" and "batch_size" in given:
        parser.error("argument --batch-size: the lecture's program takes all images at once")
    flags = DEFAULTS | PRESETS[given.get("preset")] | given
    if flags["precision"] == "bfloat16" and flags["x64"]:
        parser.error("argument --precision: bfloat16 is not allowed with argument --x64")
    if "beta2" in given and not flags["optimizer"].startswith("adam"):
        parser.error(f"argument --beta2: not allowed with --optimizer {flags['optimizer']}")
    return flags


def configure(flags: dict[str, Any], dataset: data.Dataset) -> Config:
    """Completes the configuration with what suits the dataset."""
    images = len(dataset.train.inputs)
    recipe = dict(SMALL if images <= SMALL_IMAGES else LARGE)
    recipe["batch_size"] = min(recipe["batch_size"], images)
    if flags["preset"] == "lecture":
        recipe |= {"batch_size": images, "learning_rate": LECTURE_RATE * images / 2}
    recipe["out"] = Path("results") / (flags["preset"] or dataset.name)
    if flags["devices"] is None:
        devices = batches.choose_devices(jax.devices(), recipe["batch_size"])
        flags = flags | {"devices": 1 if flags["debug_nans"] else len(devices)}
    config = Config(**(recipe | flags))
    if config.batch_size % config.devices or (config.debug_nans and config.devices > 1):
        raise ValueError(
            f"argument --devices: must divide the {config.batch_size:,} rows of a batch, and be 1 "
            f"with --debug-nans, got {config.devices}"
        )
    if config.chunk is not None and config.chunk > config.batch_size:
        raise ValueError(
            f"argument --chunk: must be at most the {config.batch_size:,} rows of a batch, "
            f"got {config.chunk}"
        )
    every = config.check_gradients_every
    if every is not None and every > config.epochs:
        raise ValueError(
            f"argument --check-gradients-every: must be at most the {config.epochs:,} "
            f"{unit_of(config)}s of the run, got {every}"
        )
    return config


def as_json(config: Config) -> dict[str, Any]:
    """Returns the configuration as plain values."""
    values = dataclasses.asdict(config)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def sizes_of(dataset: data.Dataset) -> str:
    """Returns how many images each split has, in words."""
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return ", ".join(f"{len(s.inputs):,} {name}" for name, s in splits.items() if s is not None)


def say(line: object) -> None:
    """Prints at once, so that a pipe shows progress too."""
    print(line, flush=True)


def load(flags: dict[str, Any]) -> tuple[Config, data.Dataset]:
    """Returns dataset and configuration once both are known to be good."""
    try:
        dataset = data.load(
            flags["dataset"],
            validation_split=flags["validation_split"],
            data_dir=flags["data_dir"],
            manual_dir=flags["manual_dir"],
            dtype=np.uint8,  # the step scales what it reads; see results/benchmark
        )
        config = configure(flags, dataset)
        train.steps_per_epoch(len(dataset.train.inputs), config.batch_size)
    except ValueError as error:
        raise cli.StopError(error) from error
    try:
        record.check_writable(config.out)
    except OSError as error:
        raise cli.StopError(
            f"--out {config.out} cannot be written: {error.strerror or error}"
        ) from error
    return config, dataset


def make_audit(config: Config, examples: data.Split, key: jax.Array) -> Audit:
    """Returns the audit of the gradient that trains on a real batch, compiled once for a run."""
    batch = min(CHECK_BATCH, len(examples.inputs))
    inputs, targets = (jax.device_put(array[:batch]) for array in examples)
    arrays = batches.as_floats(inputs, targets, jnp.result_type(float))
    options: dict[str, Any] = (
        {} if precision_of(config) is None else {"tolerance": BFLOAT16_TOLERANCE}
    )
    audit = gradcheck.make_check(mlp.loss, **options)
    value_and_grad = make_gradient(config)

    def run(params: mlp.Params) -> gradcheck.Report:
        return audit(params, *arrays, gradient=lambda *args: value_and_grad(*args)[1], key=key)

    return run


def precision_of(config: Config) -> str | None:
    """Returns the precision of products, or None for the parameters' own."""
    return None if config.precision == "float32" else config.precision


def make_gradient(config: Config) -> train.ValueAndGrad:
    """Returns the gradient that trains."""
    gradient, precision = train.GRADIENTS[config.gradient], precision_of(config)
    return gradient if precision is None else functools.partial(gradient, precision=precision)


def chunk_of(config: Config, params: mlp.Params) -> int:
    """Returns the rows of a batch that a gradient takes at a time."""
    if config.chunk is not None:
        return config.chunk
    return batches.rows_per_chunk(
        params,
        config.batch_size,
        jax.default_backend(),
        config.devices,
        precision=precision_of(config),
    )


def check_gradients(
    config: Config, audit: Audit, params: mlp.Params, examples: data.Split
) -> gradcheck.Report | None:
    """Shows that the gradient is right on a real batch, or stops the run."""
    every = config.check_gradients_every
    if not config.check_gradients:
        if every is not None:
            say(f"{name_of(config)} is audited after every {every} {unit_of(config)}s, not before")
        return None
    report = audit(params)
    batch = min(CHECK_BATCH, len(examples.inputs))
    say(f"\n{name_of(config)} on {batch} images\n\n{report}\n")
    if report.verdict == "fail":
        raise cli.StopError(cli.describe(report), cli.FAILED)
    return report


def name_of(config: Config) -> str:
    """Returns what to call the gradient that trains."""
    return "the hand-written gradient" if config.gradient == "hand" else "the gradient of jax.grad"


def is_due(config: Config, epoch: train.Epoch) -> bool:
    """Whether the gradient is to be audited after this epoch."""
    every = config.check_gradients_every
    return every is not None and epoch.number % every == 0


@dataclasses.dataclass
class Outcome:
    """How training ended; without ``params`` if the loss stopped being finite."""

    status: str = "finished"
    message: str = ""
    epochs: int = 0
    seconds: float = 0.0
    params: mlp.Params | None = None
    reports: list[gradcheck.Report] = dataclasses.field(default_factory=list)


def follow(
    epochs: Iterable[train.Epoch],
    log: record.Record,
    interrupted: Sequence[int],
    show: Callable[[train.Epoch, gradcheck.Report | None], None],
    audit: Callable[[train.Epoch], gradcheck.Report | None],
) -> Outcome:
    """Trains, logs every epoch, and ends in good order whatever stops it."""
    outcome = Outcome()
    try:
        for epoch in epochs:
            outcome.epochs, outcome.params = epoch.number, epoch.state.params
            outcome.seconds += epoch.seconds
            report = audit(epoch)
            metrics = {
                "epoch": epoch.number,
                "train_loss": epoch.train_loss,
                "validation_loss": epoch.validation_loss,
                "validation_accuracy": epoch.validation_accuracy,
                "seconds": epoch.seconds,
            }
            if report is not None:
                outcome.reports.append(report)
                metrics["gradient"] = {
                    "verdict": report.verdict,
                    "tolerance": report.tolerance,
                    "errors": {leaf.path: plain(leaf.error) for leaf in report.leaves},
                }
            log.log(metrics)
            show(epoch, report)
            if report is not None and report.verdict == "fail":
                outcome.status = "wrong gradient"
                outcome.message = cli.describe(report)
                break
            if interrupted:
                outcome.status, outcome.message = "interrupted", "interrupted by Ctrl-C"
                break
    except train.DivergedError as error:
        # The parameters of the epoch before have lent their memory to this one.
        outcome.status, outcome.message, outcome.params = "diverged", str(error), None
    return outcome


def plain(value: float) -> float | str:
    """Returns a number as JSON can hold it."""
    return value if np.isfinite(value) else str(value)


def describe_audits(reports: Sequence[gradcheck.Report]) -> str:
    """Returns in one line what came of the audits during training."""
    counts = collections.Counter(report.verdict for report in reports)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    errors = [leaf.error for report in reports for leaf in report.leaves]
    return f"audits of the gradient: {verdicts}; largest error {np.max(errors):.1e}"


def unit_of(config: Config) -> str:
    """Returns what a pass over the data is called: with all images at once, an iteration."""
    return "iteration" if config.preset == "lecture" else "epoch"


def progress_bar(config: Config) -> tqdm.tqdm:
    """Returns a bar; it stays hidden where lines are printed, or nobody watches."""
    wanted = config.progress == "bar" or (config.progress == "auto" and sys.stderr.isatty())
    return tqdm.tqdm(
        total=config.epochs, unit=unit_of(config), disable=not wanted, dynamic_ncols=True
    )


def show_progress(
    config: Config, bar: tqdm.tqdm, epoch: train.Epoch, report: gradcheck.Report | None
) -> None:
    """Moves the bar, or prints a line: all of the lecture's, some 20 of another run's.

    An epoch after which the gradient was audited has its line, too.
    """
    validation = (
        ""
        if epoch.validation_accuracy is None
        else f"  validation loss {epoch.validation_loss:.4f}, "
        f"accuracy {epoch.validation_accuracy:.2%}"
    )
    audited = ""
    if report is not None:
        error = np.max([leaf.error for leaf in report.leaves])
        audited = f"  gradient {report.verdict}, error {error:.1e}"
    if not bar.disable:
        bar.set_postfix_str(f"loss {epoch.train_loss:.4f}{validation}{audited}", refresh=False)
        bar.update()
    elif config.progress == "none":
        return
    elif config.preset == "lecture":
        line = "[%04d] MSE Loss: %0.3f" % (epoch.number - 1, epoch.train_loss)  # noqa: UP031, the slide's
        say(line + audited)
    elif epoch.number == 1 or epoch.number % max(1, config.epochs // 20) == 0 or audited:
        say(f"epoch {epoch.number:4d}  loss {epoch.train_loss:.4f}{validation}{audited}")


def record_test(params: mlp.Params, dataset: data.Dataset, log: record.Record) -> dict[str, Any]:
    """Tests the trained network, the only use of the test set; writes parameters and mistakes."""
    mlp.save(log.path(record.PARAMS), params)
    result = train.evaluate(params, dataset.test)
    worst = [
        {
            "index": int(index),
            "label": int(dataset.test.labels[index]),
            "predicted": int(result.predicted[index]),
            "image": as_bytes(dataset.test.inputs[index]).reshape(dataset.image_shape).tolist(),
        }
        for index in result.mistakes[:WORST]
    ]
    record.write_json(log.path(record.MISTAKES), worst)
    return {
        "test_accuracy": result.accuracy,
        "test_loss": result.loss,
        "train_loss": train.evaluate(params, dataset.train).loss,
        "test_examples": len(dataset.test.inputs),
        "image_shape": dataset.image_shape,
        "confusion": result.confusion.tolist(),
    }


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Returns an image's pixels from 0 to 255."""
    return (pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels)).astype(int)


def draw(config: Config) -> None:
    """Draws the pictures of the run."""
    from jaxnet import plots  # here, so that nobody waits for matplotlib before training

    plots.draw_run(config.out)


def main(argv: list[str] | None = None) -> int:
    """Runs the script and returns its exit status."""
    flags = parse(argv)
    cli.select_device(flags["platform"], flags["x64"], flags["devices"])
    cli.use_compilation_cache()
    config, dataset = load(flags)

    # One key a run; whatever is random folds its purpose into it.
    key = jax.random.key(config.seed)
    init_key, order_key, check_key = (jax.random.fold_in(key, purpose) for purpose in range(3))
    sizes = (dataset.train.inputs.shape[1], *config.hidden, dataset.train.targets.shape[1])
    params = mlp.init(init_key, sizes, scheme=config.init, bias=config.bias)
    shape = "-".join(map(str, sizes))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    products = "" if precision_of(config) is None else f", products in {config.precision},"
    say(
        f"{dataset.name}: {sizes_of(dataset)} images; {shape}, {count:,} parameters, "
        f"{params[0].weight.dtype}{products} on {jax.default_backend()}"
    )
    audit = make_audit(config, dataset.train, check_key)
    report = check_gradients(config, audit, params, dataset.train)

    steps = train.steps_per_epoch(len(dataset.train.inputs), config.batch_size)
    decay_steps = config.epochs * steps if config.schedule == "cosine" else None
    warmup_steps = int(config.warmup * (decay_steps or 0))
    run = train.fit(
        params,
        dataset.train,
        dataset.validation,
        key=order_key,
        optimizer=train.make_optimizer(
            config.optimizer,
            config.learning_rate,
            decay_steps=decay_steps,
            warmup_steps=warmup_steps,
            beta2=config.beta2,
        ),
        value_and_grad=make_gradient(config),
        chunk=chunk_of(config, params),
        devices=None if config.devices == 1 else jax.devices()[: config.devices],
        batch_size=config.batch_size,
        epochs=config.epochs,
        debug_nans=config.debug_nans,
    )
    # Until all is written, so that Ctrl-C in the last moments does not cost the record.
    with record.Record(config.out, as_json(config)) as log, cli.polite_interrupt() as interrupted:
        with progress_bar(config) as bar:
            outcome = follow(
                run.epochs,
                log,
                interrupted,
                lambda epoch, report: show_progress(config, bar, epoch, report),
                lambda epoch: audit(epoch.state.params) if is_due(config, epoch) else None,
            )
        summary = {
            "status": outcome.status,
            "dataset": dataset.name,
            "sizes": sizes,
            "parameters": count,
            "epochs": outcome.epochs,
            "steps": outcome.epochs * steps,
            "unit": unit_of(config),
            "gradient_check": report and report.to_dict(),
            "environment": record.environment(),
            "compile_seconds": run.compile_seconds,
            "train_seconds": outcome.seconds,
            "total_seconds": time.perf_counter() - START,
        }
        if outcome.status == "wrong gradient":
            failed = outcome.reports[-1]
            summary["failed_gradient_check"] = {"epoch": outcome.epochs, **failed.to_dict()}
            say(f"\n{name_of(config)} after {unit_of(config)} {outcome.epochs}\n\n{failed}")
        if outcome.params is not None:
            summary |= record_test(outcome.params, dataset, log)
        log.finish(summary)
        if outcome.params is not None:
            draw(config)
            summary["total_seconds"] = time.perf_counter() - START
            log.finish(summary)
            say(
                f"\ntest accuracy {summary['test_accuracy']:.2%}, "
                f"loss {summary['test_loss']:.4f} (training {summary['train_loss']:.4f})\n"
                f"{outcome.epochs:,} {unit_of(config)}s, {summary['steps']:,} steps: "
                f"compilation {run.compile_seconds:.1f} s, training {outcome.seconds:.1f} s, "
                f"whole run {summary['total_seconds']:.1f} s\n"
                f"record and pictures in {config.out}"
            )
            if outcome.reports:
                say(describe_audits(outcome.reports))
        if outcome.status == "finished":
            return 0
        planned = f"{config.epochs:,} {unit_of(config)}s"
        stopped = f"stopped after {outcome.epochs:,} of {planned}: {outcome.message}"
        say(stopped)
    exit_status = cli.INTERRUPTED if outcome.status == "interrupted" else cli.FAILED
    raise cli.StopError(f"{stopped}; the record is in {config.out}", exit_status)


if __name__ == "__main__":
    sys.exit(cli.run("train.py", main))
