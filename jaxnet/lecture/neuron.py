"""The perceptron as a sigmoid neuron: its decision boundary and its loss."""

import jax.numpy as jnp
import numpy as np

from jaxnet import mlp, plots
from jaxnet.lecture import ladder
from jaxnet.lecture.page import Code, Formula, Picture, Section, Table, Text
from jaxnet.types import Layer

__all__ = ["penalties", "section"]


def penalties() -> list[tuple[int, int, int]]:
    """Returns the rows of the slide's table: label, prediction, penalty."""
    return [(t, y, (y - t) ** 2) for t in (0, 1) for y in (0, 1)]


def section() -> Section:
    """Returns the section on one sigmoid neuron: its decision boundary and its loss."""
    problem = ladder.two_points()
    guesses = {"w = (0.29, -0.60, -0.80)": (0.29, -0.60, -0.80)}
    guesses["w = (0.34, -0.91, -0.44)"] = (0.34, -0.91, -0.44)
    guesses["w = (-1, 0.5, 0.1)"] = (-1.0, 0.5, 0.1)
    inputs, targets = problem.data
    losses = {
        name: [float(mlp.loss((_as_layer(w),), inputs, each)) for each in (targets, 1 - targets)]
        for name, w in guesses.items()
    }
    names = list(guesses)
    points, labels = np.array(ladder.POINTS)[:, 1:], np.array(ladder.LABELS)
    rows = [(str(t), str(y), str(penalty)) for t, y, penalty in penalties()]
    return Section(
        "neuron",
        "A neuron and its objective",
        "Perceptrons; Recall...; Improving predictions",
        [
            Text(
                "Rosenblatt's perceptron adds up its weighted inputs and fires if the sum is above "
                "a threshold. With a sigmoid instead of the threshold, its output can be "
                "differentiated. With x0 = 1, the bias w0 is a weight like the others."
            ),
            Formula(
                r"y = \sigma(w \cdot x), \quad \sigma(s) = \frac{1}{1 + e^{-s}}, \quad x_0 = 1"
            ),
            Text(
                "The output is 1/2 where w · x = 0: on a straight line in the plane, on a "
                "hyperplane in more dimensions. The neuron takes every point on one side of it for "
                "a 1, and every point on the other side for a 0."
            ),
            Picture(
                "neuron",
                plots.lecture.neuron(points, labels, guesses),
                "Three neurons and the slide's two points. On the black line the output is 1/2. "
                "The first two neurons are the slide's guesses: weights -0.60, -0.80 with bias "
                "0.29, and weights -0.91, -0.44 with bias 0.34. Both put both points on the wrong "
                f"side. Their losses are {losses[names[0]][0]:.2f} and {losses[names[1]][0]:.2f}; "
                "with the two labels exchanged they would be "
                f"{losses[names[0]][1]:.4f} and {losses[names[1]][1]:.4f}.",
                vector=False,
            ),
            Text("How wrong is the neuron? The mean squared error over n examples tells:"),
            Formula(r"\mathrm{MSE} = \frac{1}{n} \sum_{i=1}^{n} (y_i - t_i)^2"),
            Table(("label t", "prediction y", "penalty"), rows),
            Code([mlp.mean_squared_error]),
        ],
        {"losses, and with the labels exchanged": losses, "penalties": penalties()},
    )


def _as_layer(weights: tuple[float, ...]) -> Layer:
    """Returns a layer of one neuron from w0, w1, ..."""
    return Layer(jnp.array(weights[1:])[:, None], jnp.array(weights[:1]))
