"""The sigmoid network of a deep-learning lecture in JAX, with a backward pass written by hand.

Modules are imported when they are first used: ``import jaxnet; jaxnet.mlp.init(...)``.
"""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxnet import (
        backprop,
        checkpoint,
        circuit,
        data,
        faults,
        gradcheck,
        lecture,
        logic,
        mlp,
        optimizers,
        plots,
        record,
        train,
    )

    __version__: str

__all__ = [
    "backprop",
    "checkpoint",
    "circuit",
    "data",
    "faults",
    "gradcheck",
    "lecture",
    "logic",
    "mlp",
    "optimizers",
    "plots",
    "record",
    "train",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of the package

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return importlib.import_module(f"jaxnet.{name}")
        if name == "__version__":
            try:
                return metadata.version("jaxnet-mlp")
            except metadata.PackageNotFoundError:  # a source tree that is not installed
                return "unknown"
        raise AttributeError(f"module 'jaxnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
