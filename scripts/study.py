"""Runs one of the studies that figures in results/ come from."""

import importlib
import sys
from collections.abc import Sequence

from studies import STUDIES

from jaxnet import text
from jaxnet.cli.common import BAD_INPUT, run


def main(argv: Sequence[str]) -> int:
    """Runs the study that the first argument names, and returns its exit status."""
    if argv and argv[0] in STUDIES:
        module = importlib.import_module(STUDIES[argv[0]][0])
        program = f"study.py {argv[0]}"
        return run(program, module.main, program, argv[1:])
    if argv in (["--help"], ["-h"]):
        print(f"usage: python scripts/study.py STUDY ...\n\n{__doc__}\n")
        print(text.table(("study", "what it measures or writes"), _described()))
        print("\npython scripts/study.py STUDY --help shows the flags of one, and an example.")
        return 0
    got = repr(argv[0]) if argv else "nothing"
    print(f"study.py: error: must be one of {', '.join(STUDIES)}, got {got}", file=sys.stderr)
    return BAD_INPUT


def _described() -> list[tuple[str, str]]:
    return [(name, what) for name, (_, what) in STUDIES.items()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
