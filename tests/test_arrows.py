"""Which module may import which, and how long modules may be; nothing is imported to check it."""

import ast
import graphlib
import sys

import pytest

from .conftest import ROOT

# Of each module and package of jaxnet, from the bottom up: what it may import from the others.
ARROWS = {
    "types": "",
    "text": "",
    "jaxprs": "",
    "files": "text",
    "record": "files text",
    "products": "types",
    "mlp": "products types",
    "backprop": "mlp products types",
    "checkpoint": "files mlp text types",
    "export": "files mlp types",
    "gradcheck": "jaxprs text",
    "optimizers": "gradcheck types",
    "logic": "backprop mlp optimizers types",
    "faults": "backprop gradcheck mlp products types",
    "circuit": "jaxprs text",
    "data": "files text types",
    "train": "backprop checkpoint data files gradcheck mlp products record text types",
    "plots": "circuit files record text",
    "lecture": "backprop circuit data files gradcheck logic mlp optimizers plots record text train "
    "types",
}
ARROWS |= {"cli": f"jaxnet {' '.join(ARROWS)}", "__init__": " ".join(ARROWS), "__main__": "cli"}

# Of libraries, the only places that may import them; of packages, the only libraries they may.
PLACES = {
    "matplotlib": ("jaxnet/plots/",),
    "argparse": ("jaxnet/cli/", "jaxnet/train/options.py", "scripts/"),
    "tensorflow": (),
    "tensorflow_datasets": ("jaxnet/data/",),
    "pytest": ("jaxnet/gradcheck/pytest_plugin.py",),
}
# (JAX itself needs SciPy.)
LIBRARIES = {"gradcheck": {"jax", "numpy", "scipy", "pytest"}, "types": {"jax"}, "text": set()}
# Old names of what has moved, on demand.
EXCEPTIONS = {"jaxnet/mlp.py imports jaxnet.checkpoint"}


def read():
    """Returns the text of all modules, by path."""
    paths = [*(ROOT / "jaxnet").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(paths)}


def imported(source):
    """Yields the full names of what a module imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f".{node.module}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)


def is_allowed(path, name):
    """Whether a module may import what has this full name."""
    folder, room = path.removesuffix(".py").split("/")[:2]
    library, other = [*name.split("."), ""][:2]
    if not library:  # a relative import
        return False
    if library == "jaxnet":
        if folder == "scripts":
            return path == "scripts/peers/jaxnet_.py" or not path.startswith("scripts/peers/")
        other = other if other in ARROWS else "jaxnet"  # the face
        return other == room or other in ARROWS.get(room, "").split()
    if folder == "jaxnet" and library not in {*sys.stdlib_module_names, *LIBRARIES.get(room, ())}:
        return room not in LIBRARIES and path.startswith(PLACES.get(library, ""))
    return path.startswith(PLACES.get(library, ""))


def violations(path, source):
    """Returns the imports of a module that are not allowed."""
    return [f"{path} imports {name}" for name in imported(source) if not is_allowed(path, name)]


def test_modules_import_only_what_they_may():
    found = [wrong for path, text in read().items() for wrong in violations(path, text)]
    assert sorted(found) == sorted(EXCEPTIONS)


def test_arrows_make_no_circle():
    order = {room: set(others.split()) - {"jaxnet"} for room, others in ARROWS.items()}
    assert len(list(graphlib.TopologicalSorter(order).static_order())) == len(ARROWS)
    order["types"] = {"train"}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(order).prepare()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("jaxnet/mlp.py", "from jaxnet import train"),
        ("jaxnet/mlp.py", "def later():\n  from jaxnet.backprop import loss"),
        ("jaxnet/data/load.py", "from .. import mlp"),
        ("jaxnet/gradcheck/run.py", "import jaxnet.mlp"),
        ("jaxnet/gradcheck/run.py", "import optax"),
        ("jaxnet/train/fit.py", "import jaxnet"),
        ("jaxnet/train/config.py", "import argparse"),
        ("jaxnet/lecture/page.py", "from matplotlib import pyplot"),
        ("jaxnet/data/load.py", "import tensorflow as tf"),
        ("scripts/benchmark.py", "import matplotlib"),
        ("scripts/peers/torch_.py", "from jaxnet import mlp"),
        ("jaxnet/attic.py", "from jaxnet import mlp"),
    ],
)
def test_a_wrong_import_is_caught(path, source):
    (wrong,) = violations(path, source)
    assert wrong.startswith(f"{path} imports ")
    assert violations(path, "import collections.abc\nfrom jax import numpy as jnp") == []


def test_modules_are_short():
    lengths = {path: len(text.splitlines()) for path, text in read().items()}
    assert {path: length for path, length in lengths.items() if length >= 400} == {}
    for script in ("train", "check_gradients", "lecture"):
        assert lengths[f"scripts/{script}.py"] < 30


def test_results_hold_no_code():
    assert list((ROOT / "results").rglob("*.py")) == []
