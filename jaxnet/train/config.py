"""The configuration of a run: one frozen dataclass from which all that knows an option derives.

Flags, presets, ``config.json`` and checks come from its fields. A `Config` is resolved once, before
anything runs (`resolve`), and travels whole from then on. To add an option, add a field here and
use it in `jaxnet.train.loop`.
"""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet import mlp, text
from jaxnet.data import Dataset
from jaxnet.train.fit import GRADIENTS
from jaxnet.train.memory import check_memory
from jaxnet.train.microbatch import microbatch_size
from jaxnet.train.optimizer import OPTIMIZERS, SCHEDULES
from jaxnet.train.options import (
    check,
    fraction,
    name,
    natural_number,
    one_of,
    option,
    path,
    positive_integer,
    positive_number,
    widths,
)
from jaxnet.train.order import steps_per_epoch
from jaxnet.train.sharding import choose_devices
from jaxnet.types import Layer

__all__ = [
    "MOST_STEPS",
    "PRESETS",
    "Config",
    "DataOptions",
    "NetworkOptions",
    "check_config",
    "resolve",
]

LECTURE_RATE = 1e-5  # of the slides, on a gradient summed over the images without the factor 2
_SMALL_IMAGES = 10_000  # examples up to which a dataset gets the small recipe
MOST_STEPS = 2**31 - 1  # optax counts them in int32


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which data, and where it is."""

    dataset: str = option(
        "digits", name, "digits (default), mnist, fashion_mnist or the path of a .npz file"
    )
    data_dir: Path | None = option(None, path, "where prepared data is kept ($JAXNET_DATA_DIR)")
    manual_dir: Path | None = option(
        None, path, "folder with downloaded archives ($JAXNET_MANUAL_DIR)"
    )


@dataclasses.dataclass(frozen=True)
class NetworkOptions(DataOptions):
    """Which network, from which seed, on which device."""

    hidden: tuple[int, ...] = option(None, widths, "of the hidden layers: 256,128; or none")
    bias: bool = option(True, None, "layers without biases", ("--no-bias",))
    init: str = option("glorot", one_of(mlp.SCHEMES), "distribution of the first parameters")
    seed: int = option(0, natural_number, "of all random numbers (0)")
    platform: str | None = option(
        None, one_of(("cpu", "cuda", "tpu")), "by default the best there is"
    )


@dataclasses.dataclass(frozen=True)
class Config(NetworkOptions):
    """All options of a run. Those that are None are open until `resolve` has seen the data.

    Example:
      >>> Config(epochs=5).optimizer
      'adam'
      >>> dataclasses.replace(PRESETS["lecture"], epochs=100).bias
      False
    """

    preset: str | None = option(
        None, one_of(("lecture", "fast")), "lecture: its program; fast: 98% of MNIST in seconds"
    )
    gradient: str = option("hand", one_of(tuple(GRADIENTS)), "by hand (default) or jax.grad")
    precision: str = option(
        "float32", one_of(("float32", "bfloat16")), "compute dtype of matrix products (float32)"
    )
    microbatch: int = option(
        None,
        positive_integer,
        "rows of a batch that are computed at a time (what suits)",
        ("--microbatch", "--chunk"),
    )
    devices: int = option(
        1, positive_integer, "over which each batch is sharded; CPU cores, too (1)"
    )
    optimizer: str = option("adam", one_of(OPTIMIZERS), "of optax (adam)")
    schedule: str = option("cosine", one_of(SCHEDULES), "of the learning rate (cosine)")
    warmup: float = option(0.0, fraction, "fraction of the steps in which the rate rises first (0)")
    beta2: float = option(0.999, fraction, "Adam's decay of squared gradients (0.999)")
    learning_rate: float = option(None, positive_number, "by default what suits the dataset")
    batch_size: int = option(None, positive_integer, "by default what suits the dataset")
    epochs: int = option(None, positive_integer, "by default what suits the dataset")
    validation_split: float = option(0.1, fraction, "fraction of the training set (0.1)")
    x64: bool = option(False, None, "compute in float64")
    check_gradients: bool = option(
        True, None, "audit the gradient that trains before the first epoch (unless --preset)"
    )
    check_gradients_every: int | None = option(
        None, positive_integer, "audit it after every N epochs too, and stop if it is wrong"
    )
    debug_nans: bool = option(False, None, "stop at the operation that makes a NaN (slow)")
    progress: str = option(
        "auto", one_of(("auto", "bar", "lines", "none")), "auto: a bar on a terminal"
    )
    out: Path = option(None, path, "folder of the record (results/<dataset>)")

    @property
    def compute_dtype(self) -> str | None:
        """The ``precision`` of `mlp.loss`: None where it is the parameters' own dtype."""
        return None if self.precision == "float32" else self.precision

    @property
    def unit(self) -> str:
        """What a pass over the data is called: of the lecture's program, an iteration."""
        return "iteration" if self.preset == "lecture" else "epoch"

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as plain values, for ``config.json``."""
        return text.plain(self)


PRESETS: dict[str | None, Config] = {
    None: Config(),
    # Slide "Vectorized weight updates".
    "lecture": Config(
        preset="lecture",
        dataset="mnist",
        devices=None,  # pyright: ignore[reportArgumentType] as many as are worth it
        hidden=(256, 128),
        bias=False,
        init="lecture",
        optimizer="sgd",
        schedule="constant",
        epochs=5_000,
        validation_split=0.0,
        check_gradients=False,
        progress="lines",
    ),
    # 98% of MNIST in the fewest seconds, chosen on a validation split; results/benchmark/README.md.
    "fast": Config(
        preset="fast",
        dataset="mnist",
        hidden=(256, 128),
        precision="bfloat16",
        learning_rate=0.015,
        warmup=0.2,
        beta2=0.95,
        batch_size=256,
        epochs=10,
        validation_split=0.0,
        check_gradients=False,
    ),
}
# By size of the training set; chosen on validation splits, results/README.md.
_SMALL: dict[str, Any] = {"hidden": (64,), "learning_rate": 0.01, "batch_size": 32, "epochs": 100}
_LARGE: dict[str, Any] = {
    "hidden": (256, 128),
    "learning_rate": 0.004,
    "batch_size": 64,
    "epochs": 25,
}


def check_config(config: Config) -> None:
    """Checks what can be checked before the data is there: each option, and those that meet.

    Raises:
      ValueError: an option out of range, or options that exclude each other; names their flags.

    Example:
      >>> check_config(Config(schedule="constant", warmup=0.5))
      Traceback (most recent call last):
      ValueError: argument --warmup: 0.5 is not allowed with --schedule constant
    """
    check(dataclasses.replace(config, devices=1) if config.devices is None else config)
    if config.warmup and config.schedule == "constant":
        raise ValueError(
            f"argument --warmup: {config.warmup:g} is not allowed with --schedule constant"
        )
    if config.preset == "lecture" and config.batch_size is not None:
        raise ValueError(
            "argument --batch-size: not allowed with --preset lecture: the lecture's program takes "
            "all images at once"
        )
    if config.precision == "bfloat16" and config.x64:
        raise ValueError("argument --precision: bfloat16 is not allowed with argument --x64")
    if config.beta2 != Config.beta2 and not config.optimizer.startswith("adam"):
        raise ValueError(
            f"argument --beta2: {config.beta2:g} is not allowed with --optimizer {config.optimizer}"
        )


def resolve(config: Config, dataset: Dataset) -> Config:
    """Returns the configuration with everything that was open settled, by what suits the data.

    JAX's devices must be chosen by then.

    Raises:
      ValueError: what `check_config` raises, or options that do not fit the data, or need more
        memory than there is; names their flags.

    Example:
      >>> from jaxnet import data
      >>> resolve(Config(), data.load("digits")).hidden
      (64,)
    """
    check_config(config)
    images, pixels = dataset.train.inputs.shape
    suits = dict(_SMALL if images <= _SMALL_IMAGES else _LARGE)
    suits["batch_size"] = min(suits["batch_size"], images)
    if config.preset == "lecture":
        suits |= {"batch_size": images, "learning_rate": LECTURE_RATE * images / 2}
    suits["out"] = Path("results", config.preset or dataset.name)
    open_options = {each: value for each, value in suits.items() if getattr(config, each) is None}
    config = dataclasses.replace(config, **open_options)
    if config.devices is None:
        chosen = choose_devices(jax.devices(), config.batch_size)
        config = dataclasses.replace(config, devices=1 if config.debug_nans else len(chosen))
    steps = steps_per_epoch(images, config.batch_size)
    if config.batch_size % config.devices or (config.debug_nans and config.devices > 1):
        raise ValueError(
            f"argument --devices: must divide the {config.batch_size:,} rows of a batch, and be 1 "
            f"with --debug-nans, got {config.devices}"
        )
    if config.microbatch is not None and config.microbatch > config.batch_size:
        raise ValueError(
            f"argument --microbatch: must be at most the {config.batch_size:,} rows of a batch, "
            f"got {config.microbatch}"
        )
    if config.epochs * steps > MOST_STEPS:
        raise ValueError(
            f"argument --epochs: must be at most {MOST_STEPS // steps:,}, which is {MOST_STEPS:,} "
            f"steps, got {config.epochs}"
        )
    warmup_steps = config.warmup * config.epochs * steps
    if 0 < warmup_steps < 1:
        raise ValueError(
            f"argument --warmup: must be a step or more, got {config.warmup:g} of the "
            f"{config.epochs * steps:,} steps of the run"
        )
    every = config.check_gradients_every
    if every is not None and every > config.epochs:
        raise ValueError(
            f"argument --check-gradients-every: must be at most the {config.epochs:,} "
            f"{config.unit}s of the run, got {every}"
        )
    sizes = (pixels, *config.hidden, dataset.train.targets.shape[1])
    if config.microbatch is None:
        rows = microbatch_size(
            _shapes(sizes),
            config.batch_size,
            jax.default_backend(),
            devices=config.devices,
            precision=config.compute_dtype,
        )
        config = dataclasses.replace(config, microbatch=rows)
    check_memory(
        sizes,
        rows=config.microbatch,
        audited=config.check_gradients or every is not None,
        itemsize=jnp.result_type(float).itemsize,
    )
    return config


def _shapes(sizes: tuple[int, ...]) -> Any:
    """Returns the layers of a network without their numbers."""
    dtype = jnp.result_type(float)
    return tuple(Layer(jax.ShapeDtypeStruct(pair, dtype)) for pair in itertools.pairwise(sizes))
