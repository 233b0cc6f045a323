"""What `benchmark.py` measures: a module for each suite, and what they share.

A suite is a function of a `Run` that returns what it `Found`.
"""

from suites import accuracy, epoch, gradients, scaling, startup, step
from suites.common import Run as Run

SUITES = {
    "step": step.measure,
    "epoch": epoch.measure,
    "startup": startup.measure,
    "time-to-accuracy": accuracy.measure,
    "scaling": scaling.measure,
    "gradients": gradients.measure,
}
