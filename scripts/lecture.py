"""Walks through the lecture, as ``jaxnet lecture`` does: ``python scripts/lecture.py --help``."""

import sys

from jaxnet import cli

if __name__ == "__main__":
    sys.exit(cli.run("lecture", program="lecture.py"))
