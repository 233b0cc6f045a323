"""Measures jaxnet beside other libraries: the same work, in one run, a process for each.

  pip install -e '.[bench]'                                  the other libraries
  python scripts/benchmark.py --suite step                   one iteration on 60,000 images
  python scripts/benchmark.py --suite epoch                  minibatches
  python scripts/benchmark.py --suite startup                from process to first epoch
  python scripts/benchmark.py --suite time-to-accuracy       98% of MNIST
  python scripts/benchmark.py --suite scaling                how time and memory grow
  python scripts/benchmark.py --suite gradients              by hand and automatic
  python scripts/benchmark.py --suite step --quick --peers jaxnet,torch,numpy

The peers run in alternation, A B A B, so that what slows the machine slows all of them. A record is
results/benchmark/SUITE-DEVICE.json, with pictures beside it. JAX_PLATFORMS=cpu leaves a GPU alone.
"""

import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import peers
import tqdm
from suites import SUITES, Run

from jaxnet import data, record
from jaxnet.cli.common import Parser, StopError, check_out, run

# What processes of the JAX family inherit, jaxnet and others alike.
_FOR_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # what one compiles, its next process reads
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",  # float32 is float32 on a GPU, as PyTorch has it
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # none may take the memory of a GPU for itself
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """What the user asked for."""

    suites: tuple[str, ...]
    peers: tuple[str, ...]
    quick: bool
    out: Path
    images: data.Dataset | None


def parse(arguments: list[str] | None = None) -> Flags:
    """Returns the flags, once they make sense."""
    parser = Parser("benchmark.py", __doc__)
    add = parser.add_argument
    add("--suite", default=",".join(SUITES), help=f"some of {', '.join(SUITES)} (all)")
    add("--peers", default=",".join(peers.MODULES), help=f"some of {', '.join(peers.MODULES)}")
    add(
        "--quick",
        action="store_true",
        default=False,
        help="a tenth of the work: to see that it runs",
    )
    add("--out", type=Path, default=Path("results/benchmark"), help="folder (results/benchmark)")
    add(
        "--data-dir", type=Path, default=None, help="where prepared data is kept ($JAXNET_DATA_DIR)"
    )
    add("--manual-dir", type=Path, default=None, help="folder with archives ($JAXNET_MANUAL_DIR)")
    given = parser.parse_args(arguments)
    suites, names = (tuple(each.split(",")) for each in (given.suite, given.peers))
    for flag, known, chosen in (("--suite", SUITES, suites), ("--peers", peers.MODULES, names)):
        for each in chosen:
            if each not in known:
                parser.error(f"argument {flag}: must be of {', '.join(known)}, got {each!r}")
    check_out(given.out)
    try:
        images = data.load(
            "mnist", data_dir=given.data_dir, manual_dir=given.manual_dir, dtype=np.uint8
        )
    except data.DataError as error:
        if "time-to-accuracy" in suites:
            raise StopError(error) from error
        print("MNIST is not here; random images take its place, and take as long")
        images = None
    return Flags(suites, names, given.quick, given.out, images)


def main(flags: Flags) -> int:
    """Runs the suites, prints their tables and writes their records."""
    missing = {name for name in flags.peers if not peers.is_installed(name)}
    for name in sorted(missing):
        print(f"{name} is left out: {peers.MODULES[name][1]} is not installed")
    flags.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in flags.peers if name not in missing]
    if not names:
        raise StopError("none of the peers is installed: pip install -e '.[bench]'")
    versions = peers.versions(names)
    for suite in flags.suites:
        with tempfile.TemporaryDirectory() as folder, tqdm.tqdm(disable=None, desc=suite) as bar:
            os.environ.update(_FOR_ALL, JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled")
            suite_run = Run(names, flags.quick, flags.images, Path(folder), bar)
            found = SUITES[suite](suite_run)
        environment = {**record.environment(), "peers": versions}
        path = flags.out / f"{suite}-{_device(environment)}.json"
        numbers = {"suite": suite, "environment": environment, **found.numbers}
        if suite_run.failed:
            numbers["left out"] = suite_run.failed
        record.write_json(path, numbers)
        print(f"\n{suite}\n\n{found.table}\n\nrecord: {path}", flush=True)
        for name in found.pictures:
            from suites import pictures  # only now: what is measured does without matplotlib

            pictures.draw(name, numbers, flags.out / f"{name}.png")
    return 0


def _device(environment: dict[str, Any]) -> str:
    """Returns what a record is named after: cpu-2, or nvidia-h100."""
    if environment["platform"] == "cpu":
        return f"cpu-{environment['cpus']}"
    return "-".join(environment["device"].lower().split())


if __name__ == "__main__":
    sys.exit(run("benchmark.py", lambda: main(parse())))
