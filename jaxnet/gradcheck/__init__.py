"""Checks gradients of any JAX function of any pytree; it knows nothing of networks."""

from jaxnet.gradcheck.audit import GradientError, LeafReport, Report, check
from jaxnet.gradcheck.differences import (
    default_step,
    finite_difference,
    finite_difference_at,
    sample_coordinates,
)

__all__ = [
    "GradientError",
    "LeafReport",
    "Report",
    "check",
    "default_step",
    "finite_difference",
    "finite_difference_at",
    "sample_coordinates",
]
