"""Trains the network, as ``jaxnet train`` does: ``python scripts/train.py --help``."""

import sys

from jaxnet import cli

if __name__ == "__main__":
    sys.exit(cli.run("train", program="train.py"))
