"""Wrong derivatives, to be planted: what a gradient checker must catch.

`CATALOGUE` holds wrong backward passes of the network, `FUNCTIONS` functions of any kind whose
derivative is wrong. Each has one mistake that people make.
"""

from jaxnet.faults.functions import FUNCTIONS, Wrong
from jaxnet.faults.network import CATALOGUE, Fault
from jaxnet.faults.network import _hand_written as _hand_written

__all__ = ["CATALOGUE", "FUNCTIONS", "Fault", "Wrong"]
