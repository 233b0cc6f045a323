"""Audits a gradient, as ``jaxnet check`` does: ``python scripts/check_gradients.py --help``."""

import sys

from jaxnet import cli

if __name__ == "__main__":
    sys.exit(cli.run("check", program="check_gradients.py"))
