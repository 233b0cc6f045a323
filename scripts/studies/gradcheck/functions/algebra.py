"""Linear algebra: solves, inverses and Cholesky factors."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from studies.gradcheck.functions.drawing import Draw, Drawn

__all__ = ["cholesky", "solve"]


def _matrix(draw: Draw, size: int, condition: float) -> np.ndarray:
    left, _ = np.linalg.qr(draw.rng.standard_normal((size, size)))
    right, _ = np.linalg.qr(draw.rng.standard_normal((size, size)))
    return np.asarray(left * np.geomspace(1, 1 / condition, size) @ right, np.float32)


def solve(draw: Draw) -> Drawn:
    """Draws a linear system, solved in one of three ways."""
    size, columns = draw.log_integer(1, 48), draw.integer(1, 4)
    condition, scale = draw.log_uniform(1, 1e3), draw.log_uniform(1e-3, 1e3)
    kind = draw.choose(("solve", "inverse", "triangular"))
    matrix = np.float32(scale) * _matrix(draw, size, condition)
    if kind == "triangular":  # of the same condition
        matrix = np.linalg.qr(matrix)[1].T
    right = draw.normal(size, columns, scale=draw.log_uniform(1e-3, 1e3))
    weights, linear = draw.normal(size, columns), draw.coin()

    def f(leaves, weights):
        matrix, right = leaves["matrix"], leaves["right"]
        if kind == "solve":
            solution = jnp.linalg.solve(matrix, right)
        elif kind == "inverse":
            solution = jnp.linalg.inv(matrix) @ right
        else:
            solution = jax.scipy.linalg.solve_triangular(matrix, right, lower=True)
        return jnp.sum(weights * solution) if linear else jnp.sum((solution - weights) ** 2)

    args = ({"matrix": matrix, "right": right}, weights)
    return f"{kind}, {size} x {size}, condition {condition:.1e}, scale {scale:.1e}", f, args


def cholesky(draw: Draw) -> Drawn:
    """Draws a Gaussian log-likelihood by a Cholesky factor."""
    kind = draw.choose(("factor", "covariance", "Gaussian process"))
    size, condition = draw.log_integer(2, 32), draw.log_uniform(1, 1e3)
    root = _matrix(draw, size, math.sqrt(condition))
    observed = draw.normal(size)

    def likelihood(covariance, observed):
        factor = jnp.linalg.cholesky(covariance)
        solution = jax.scipy.linalg.cho_solve((factor, True), observed)
        return 0.5 * jnp.dot(observed, solution) + jnp.sum(jnp.log(jnp.diagonal(factor)))

    if kind == "factor":

        def of_factor(root, observed):
            return likelihood(root @ root.T, observed)

        f, args = of_factor, (root, observed)
    elif kind == "covariance":
        determinant = draw.coin()

        def of_covariance(leaves, observed):
            covariance, mean = leaves
            if determinant:
                solution = jnp.linalg.solve(covariance, observed - mean)
                return jnp.linalg.slogdet(covariance)[1] + jnp.dot(observed - mean, solution)
            return likelihood(covariance, observed - mean)

        f, args = of_covariance, ((root @ root.T, draw.normal(size)), observed)
    else:

        def of_process(leaves, observed, places):
            distance = (places[:, None] - places[None, :]) / jnp.exp(leaves["log_length"])
            covariance = jnp.exp(leaves["log_amplitude"] - 0.5 * distance**2)
            noise = jnp.exp(leaves["log_noise"])
            identity = jnp.eye(len(places), dtype=places.dtype)
            return likelihood(covariance + noise * identity, observed)

        leaves = {
            "log_length": draw.uniform(-2, 1),
            "log_amplitude": draw.uniform(-1, 1),
            "log_noise": draw.uniform(-3, 0),
        }
        f, args = of_process, (leaves, observed, draw.uniform(-3, 3, size))
    return f"{kind}, {size} x {size}, condition {condition:.1e}", f, args
