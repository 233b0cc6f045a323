"""Measures the gradient audit beside the checkers that people use today.

  python scripts/study.py gradcheck                        everything, an hour on two cores
  python scripts/study.py gradcheck alarms --functions 50  the first 50 of the random functions
  python scripts/study.py gradcheck pictures               draws the pictures again from the records

The parts:

  detection    wrong gradients of the network on MNIST
  small        the same with a small network, on the digits
  coordinates  gradients that are wrong in one coordinate
  alarms       right gradients of 2,000 random functions
  bfloat16     right and wrong gradients in bfloat16
  cost         time and memory
  convergence  the error of differences against their step
  pictures     from the records

Each part writes its record to results/gradcheck/PART.json. The other checkers are
`jax.test_util.check_grads` and, where PyTorch is installed, `torch.autograd.gradcheck`. MNIST is
found as scripts/train.py finds it. An interrupted part leaves PART.partial.jsonl, from which the
next run goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from jaxnet import record, text
from jaxnet.cli.common import Parser, check_out, say
from jaxnet.train.options import positive_integer
from studies.gradcheck.alarms import alarms
from studies.gradcheck.bfloat16 import bfloat16
from studies.gradcheck.coordinates import coordinates
from studies.gradcheck.cost import cost
from studies.gradcheck.detection import detection, small
from studies.gradcheck.options import Options
from studies.gradcheck.pictures import convergence, draw

__all__ = ["PARTS", "main"]

PARTS = {
    "detection": detection,
    "small": small,
    "coordinates": coordinates,
    "alarms": alarms,
    "bfloat16": bfloat16,
    "cost": cost,
    "convergence": convergence,
}
_LONG = ("rows", "right", "curves", "report", "not passed")  # not printed


def main(program: str, argv: Sequence[str]) -> int:
    """Runs the study."""
    parser = Parser(program, __doc__)
    add, usual = parser.add_argument, Options()
    add("parts", nargs="*", type=_part, default=list(PARTS), metavar="PART", help="all by default")
    add("--seeds", type=positive_integer, help="networks of each initialisation (3)")
    add("--functions", type=positive_integer, help="how many random functions (2000)")
    add("--jobs", type=positive_integer, help=f"processes that audit them ({usual.jobs})")
    add("--out", type=Path, help="folder of the records (results/gradcheck)")
    given = vars(parser.parse_args(argv))
    parts, options = given.pop("parts"), Options(**given)
    check_out(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if part in PARTS:
            found = PARTS[part](options)
            environment = record.environment()
            record.write_json(options.out / f"{part}.json", {**found, "environment": environment})
            brief = {name: value for name, value in found.items() if name not in _LONG}
            say(text.dumps({part: brief}, indent=True))
    if {"detection", "convergence", "pictures"} & set(parts):
        draw(options.out)
    return 0


def _part(name: str) -> str:
    if name not in (*PARTS, "pictures"):
        known = ", ".join((*PARTS, "pictures"))
        raise argparse.ArgumentTypeError(f"must be one of {known}, got {name!r}")
    return name
