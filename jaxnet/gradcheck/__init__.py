"""Checks gradients of any JAX function of any pytree; it knows nothing of networks."""

from jaxnet.gradcheck.audit import check, make_check
from jaxnet.gradcheck.convergence import Convergence, Curve, convergence
from jaxnet.gradcheck.differences import (
    default_step,
    finite_difference,
    finite_difference_at,
    sample_coordinates,
)
from jaxnet.gradcheck.products import check_hvp, check_jvp, check_vjp
from jaxnet.gradcheck.report import GradientError, LeafReport, Report

__all__ = [
    "Convergence",
    "Curve",
    "GradientError",
    "LeafReport",
    "Report",
    "check",
    "check_hvp",
    "check_jvp",
    "check_vjp",
    "convergence",
    "default_step",
    "finite_difference",
    "finite_difference_at",
    "make_check",
    "sample_coordinates",
]
