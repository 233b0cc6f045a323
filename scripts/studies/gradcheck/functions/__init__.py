"""Random functions with right gradients, on which a gradient checker must raise no false alarm.

Arguments are drawn in float32 and cast, so that in float64 it is the same function at the same
point. Stiff, saturated and badly scaled functions are meant to be there, and kinks near the point.
Not drawn, because no checker could be blamed for what it says of them:

- leaves whose gradient is zero by construction: a cross-entropy of one class, attention over one
  position, a key's bias, a layer norm of two, layers below one whose relus are dead for every
  example (single dead relus stay);
- points exactly at a kink, or within a step of a jump (the predicates of `lax.cond`);
- float32 gradients that are right in form and have lost their digits: a layer of which every unit
  is saturated (1 - sigmoid(17) is 0 in float32), a nearly certain softmax, chaotic recurrences,
  matrices of a condition number above 1,000;
- sums whose terms differ by more than 1e6, targets that outweigh the outputs, and saturated
  compositions, where a leaf moves the value by so little that rounding hides 1e-5 of it.

All of the first 2,000 are finite in value and gradient, and no leaf's gradient is zero. The float32
gradient is within 3e-4 of the float64 one, leaf by leaf, with one exception: in seed 545, the bias
of a layer of one unit, whose gradient cancels over the batch, is off by 0.1% to 0.3%, depending on
the compiler.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from studies.gradcheck.functions import (
    algebra,
    compositions,
    indexing,
    loops,
    models,
    networks,
)
from studies.gradcheck.functions.drawing import Draw, Drawn

__all__ = ["FAMILIES", "Problem", "draw"]

# Of each family: how often it is drawn, and what draws one.
FAMILIES: dict[str, tuple[float, Callable[[Draw], Drawn]]] = {
    "network": (0.4, networks.network),
    "composition": (0.06, compositions.composition),
    "logsumexp": (0.05, compositions.logsumexp),
    "scales": (0.06, compositions.scales),
    "solve": (0.06, algebra.solve),
    "cholesky": (0.05, algebra.cholesky),
    "recurrence": (0.05, loops.recurrence),
    "initial value": (0.02, loops.initial_value),
    "control flow": (0.06, loops.control_flow),
    "indexing": (0.06, indexing.indexing),
    "convolution": (0.04, models.convolution),
    "normalisation": (0.04, models.normalisation),
    "attention": (0.03, models.attention),
    "spectrum": (0.02, models.spectrum),
}


class Problem(NamedTuple):
    """A function that is right, and where to differentiate it.

    Attributes:
      name: the family, a colon, and what was drawn.
      f: a real scalar function of ``args``.
      args: pytrees; the gradient to check is in ``args[0]``, whose leaves are floating-point.
    """

    name: str
    f: Callable[..., jax.Array]
    args: tuple[Any, ...]

    @property
    def family(self) -> str:
        """The part of the name before the colon."""
        return self.name.partition(":")[0]


def draw(seed: int, dtype: DTypeLike) -> Problem:
    """Returns the seed's function, with floating-point arguments of a dtype.

    Raises:
      ValueError: float64 without ``jax_enable_x64``.
    """
    dtype = jnp.dtype(dtype)
    if dtype == jnp.float64 != jnp.result_type(float):
        raise ValueError("dtype float64 needs jax_enable_x64, which is off")
    drawing = Draw(seed)
    shares = np.array([share for share, _ in FAMILIES.values()])
    family = list(FAMILIES)[drawing.rng.choice(len(FAMILIES), p=shares / shares.sum())]
    details, f, args = FAMILIES[family][1](drawing)
    wrapper = drawing.choose(("", "", "", "jit", "checkpoint"))
    if wrapper:
        f = jax.jit(f) if wrapper == "jit" else jax.checkpoint(f)  # pyright: ignore[reportPrivateImportUsage]
        details += f", jax.{wrapper}"

    def cast(leaf):
        is_float = np.issubdtype(leaf.dtype, np.floating)
        return jnp.asarray(leaf, dtype if is_float else leaf.dtype)

    return Problem(f"{family}: {details}", f, jax.tree.map(cast, args))
