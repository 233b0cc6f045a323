"""Wrong derivatives on purpose, to test gradient checkers with.

`CATALOGUE` holds wrong backward passes of the network, `FUNCTIONS` other functions with a wrong
derivative. Each has one mistake that people make.
"""

from jaxnet.faults.catalogue import CATALOGUE
from jaxnet.faults.functions import FUNCTIONS, Wrong
from jaxnet.faults.network import Fault

__all__ = ["CATALOGUE", "FUNCTIONS", "Fault", "Wrong"]
