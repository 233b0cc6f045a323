"""The same network and training, as the users of other libraries would write it.

Each module but `worker`, `ceilings` and `optax_` is for one library. It has ``VARIANTS``, the names
of its programs with a sentence on each, and ``make(variant, work)``, which returns a `Program`.
`worker` runs one in a process of its own.
"""

import importlib.util
import math
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

import numpy as np

# Of each program, its module and the package that it needs. Modules are imported only in the
# processes that run them.
MODULES = {
    "jaxnet": ("jaxnet_", "jaxnet"),
    "jaxnet-auto": ("jaxnet_", "jaxnet"),
    "jaxnet-bfloat16": ("jaxnet_", "jaxnet"),
    "numpy": ("numpy_", "numpy"),
    "numpy-float64": ("numpy_", "numpy"),
    "torch": ("torch_", "torch"),
    "torch-compile": ("torch_", "torch"),
    "torch-chunked": ("torch_", "torch"),
    "torch-bfloat16": ("torch_", "torch"),
    "torch-bfloat16-compile": ("torch_", "torch"),
    "torch-bfloat16-chunked": ("torch_", "torch"),
    "sklearn": ("sklearn_", "sklearn"),
    "jax": ("jax_", "jax"),
    "jax-scan": ("jax_", "jax"),
    "jax-bfloat16": ("jax_", "jax"),
    "flax": ("flax_", "flax"),
    "equinox": ("equinox_", "equinox"),
    "keras": ("keras_", "keras"),
    "nielsen": ("nielsen_", "numpy"),
}
STREAM = "jaxnet-stream"  # the dataset is read from a file in every epoch
CEILINGS = ("matmul", "matmul-bfloat16", "bandwidth")


class Work(NamedTuple):
    """What a program is to compute.

    Attributes:
      images: ``(n, pixels)`` uint8; the network sees ``images / 255``.
      labels: ``(n,)`` integers; the network's targets are their one-hot vectors.
      params: initial weight ``(inputs, outputs)`` and bias ``(outputs,)`` of each layer, float32;
        a bias is None where the network has none.
      batch_size: ``len(images)`` for gradient descent on all images at once.
      optimizer: ``"sgd"`` or ``"adam"``, with the usual defaults.
      learning_rate: the peak of the schedule.
      epochs: over which the learning rate falls to 0 along a cosine, step by step; None means that
        it is constant.
      warmup: fraction of those steps in which it first rises from 0, linearly.
      beta2: Adam's decay of squared gradients.
      seed: of the order of the images.
    """

    images: np.ndarray
    labels: np.ndarray
    params: list[tuple[np.ndarray, np.ndarray | None]]
    batch_size: int
    optimizer: str
    learning_rate: float
    epochs: int | None = None
    warmup: float = 0.0
    beta2: float = 0.999
    seed: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths from the inputs to the outputs."""
        return (self.params[0][0].shape[0], *(weight.shape[1] for weight, _ in self.params))

    @property
    def steps(self) -> int:
        """Whole minibatches in an epoch."""
        return len(self.images) // self.batch_size

    @property
    def warmup_steps(self) -> int:
        """Steps in which the learning rate rises."""
        return int(self.warmup * (self.epochs or 0) * self.steps)

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        if self.epochs is None:
            return self.learning_rate
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        falling = self.epochs * self.steps - self.warmup_steps
        return (
            self.learning_rate * (1 + math.cos(math.pi * (step - self.warmup_steps) / falling)) / 2
        )


class Program(NamedTuple):
    """A library's way to do the work.

    Attributes:
      epoch: trains for one pass over the images, waits for its end, and returns the mean of the
        minibatches' losses before their updates. The order of images is drawn anew in each epoch;
        the remainder that fills no minibatch is dropped. A batch of all images is not reordered.
      predict: the classes of ``(n, pixels)`` uint8 images, ``(n,)`` integers.
      compiled: facts about the compiled program, if known: ``temporary_mb``, which the compiler
        allocates besides arguments and results, and its numbers of ``products``, ``fusions`` and
        ``copies``.
    """

    epoch: Callable[[], float]
    predict: Callable[[np.ndarray], np.ndarray]
    compiled: dict[str, float] | None = None


def module_of(name: str) -> str:
    """Returns the module of a peer, or of a ceiling."""
    if name == STREAM:
        return "jaxnet_"
    return "ceilings" if name in CEILINGS else MODULES[name][0]


def is_installed(name: str) -> bool:
    """Whether what a peer needs can be imported."""
    return importlib.util.find_spec(MODULES[name][1]) is not None


def versions(names: list[str]) -> dict[str, str | None]:
    """Returns the versions of the packages that peers need; None if one is not installed."""
    distributions = {"sklearn": "scikit-learn", "jaxnet": "jaxnet-mlp"}
    found: dict[str, str | None] = {}
    for each in sorted({MODULES[name][1] for name in names}):
        try:
            found[each] = metadata.version(distributions.get(each, each))
        except metadata.PackageNotFoundError:
            found[each] = None
    return found
