import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxnet import cli, data

ROOT = Path(__file__).parents[1]
SCRIPTS = {"train": "train.py", "check": "check_gradients.py", "lecture": "lecture.py"}
MANUAL_DIR = os.environ.get("JAXNET_MANUAL_DIR")  # before tests take it away
sys.path.insert(0, str(ROOT / "scripts"))

# Several devices of the CPU, for the tests of data parallelism.
jax.config.update("jax_num_cpu_devices", 4)
# Compiling is most of the tests' time, and optimising most of that. Scripts that tests start as
# processes are optimised; JAX_DISABLE_MOST_OPTIMIZATIONS=0 optimises all.
if "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
    jax.config.update("jax_disable_most_optimizations", True)
# What a strict user may have set: no silent broadcast to a higher rank, no silent change of dtype.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_collection_modifyitems(items):
    """Gives the tests of MNIST to one process, so that it is prepared once."""
    for item in items:
        if item.get_closest_marker("mnist"):
            item.add_marker(pytest.mark.xdist_group("mnist"))


@pytest.fixture(scope="session")
def archives() -> Path:
    """The folder of the four MNIST archives."""
    candidates = [MANUAL_DIR, ROOT.parent / "shared" / "mnist"]
    for folder in (Path(each) for each in candidates if each):
        if all((folder / name).is_file() for name in data.ARCHIVES):
            return folder.resolve()
    pytest.skip("JAXNET_MANUAL_DIR names no folder with the four MNIST archives")


@pytest.fixture(scope="session")
def mnist_dir(archives, tmp_path_factory) -> Path:
    """A data folder in which MNIST is prepared."""
    folder = tmp_path_factory.mktemp("data")
    data.load("mnist", data_dir=folder, manual_dir=archives)
    return folder


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture
def optax_dtypes():
    """Lets optax mix dtypes: its Adam raises a float to the power of an int32."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Path:
    """A folder where commands keep what they compiled, for those of all test processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "compiled"


def call(command: str, *argv: object) -> int:
    """Runs a command in this process, as its script would, and returns its exit status."""
    names = ("jax_enable_x64", "jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        return cli.run(command, [str(each) for each in argv], program=SCRIPTS[command])
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture
def run_script(tmp_path, compiled):
    """Runs a script as a user does, in an empty folder, and returns the finished process."""

    def run(name: str, *flags: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / name), *map(str, flags)],
            cwd=tmp_path,
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compiled), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(autouse=True, scope="session")
def _own_matplotlib_cache(tmp_path_factory):
    # The user's may list fonts that are gone, of which matplotlib warns.
    os.environ["MPLCONFIGDIR"] = str(tmp_path_factory.mktemp("matplotlib"))


@pytest.fixture(autouse=True)
def _no_folders_of_the_user(monkeypatch, tmp_path, compiled):
    monkeypatch.delenv("JAXNET_MANUAL_DIR", raising=False)
    monkeypatch.setenv("JAXNET_DATA_DIR", str(tmp_path / "jaxnet-data"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compiled))
