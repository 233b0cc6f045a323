"""The pictures of the suites, drawn from their records; to be imported after measuring."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxnet import plots

__all__ = ["draw"]


def draw(name: str, numbers: Mapping[str, Any], path: Path) -> None:
    """Draws a picture of a record, whole or not at all.

    Args:
      name: ``"roofline"`` for the suite of steps, ``"scaling"`` for that of scaling.
      numbers: the record of the suite.
      path: of the picture.

    Raises:
      OSError: a picture that cannot be written.
    """
    with plots.styled():
        if name == "roofline":
            figure = _roofline(numbers)
        else:
            figure = plots.benchmark.scaling(numbers["curves"], exponents=numbers["exponents"])
    plots.save(figure, path, dpi=110)


def _roofline(numbers: Mapping[str, Any]) -> Any:
    """Returns the roofline of an iteration.

    Operations per byte count the images once, as the program stores them, and no activations: no
    program can do better, even one that keeps its activations in the caches.
    """
    ceilings, work = numbers["ceilings"], numbers["work"]
    pixels = 784 * work["batch_size"] / 1e9
    rates = {
        name: (work["gflop"] / (pixels * _pixel_bytes(name)), peer["gflops"])
        for name, peer in numbers["peers"].items()
    }
    return plots.benchmark.roofline(
        rates,
        bandwidth=ceilings["bandwidth"],
        peaks={
            "float32 products": ceilings["matmul"],
            "bfloat16 products": ceilings["matmul-bfloat16"],
        },
        highlighted=[name for name in rates if name.startswith("jaxnet")],
    )


def _pixel_bytes(peer: str) -> int:
    """Returns the bytes in which a peer stores a pixel while it trains."""
    if peer.startswith("jaxnet"):
        return 1  # uint8
    if peer.startswith("torch-bfloat16"):
        return 2
    return 8 if peer == "numpy-float64" else 4
