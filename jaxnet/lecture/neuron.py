"""The perceptron as a sigmoid neuron, the line that it draws, and what it is told."""

import jax.numpy as jnp
import numpy as np

from jaxnet import mlp, plots
from jaxnet.lecture import ladder
from jaxnet.lecture.page import Code, Formula, Picture, Section, Table, Text


def penalties() -> list[tuple[int, int, int]]:
    """Returns the slide's table: label, prediction, penalty."""
    return [(t, y, (y - t) ** 2) for t in (0, 1) for y in (0, 1)]


def section() -> Section:
    """The perceptron as a sigmoid neuron, the line that it draws, and what it is told."""
    problem = ladder.two_points()
    guesses = {"w = (0.29, -0.60, -0.80)": (0.29, -0.60, -0.80)}
    guesses["w = (0.34, -0.91, -0.44)"] = (0.34, -0.91, -0.44)
    guesses["w = (-1, 0.5, 0.1)"] = (-1.0, 0.5, 0.1)
    inputs, targets = problem.data
    losses = {
        name: [float(mlp.loss((as_layer(w),), inputs, each)) for each in (targets, 1 - targets)]
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
                "Rosenblatt's perceptron weighs its inputs, adds them up and fires or does not. "
                "Written with a sigmoid in the place of the threshold, and with x0 = 1 so that "
                "the bias w0 is a weight like the others, it is a function that can be "
                "differentiated."
            ),
            Formula(
                r"y = \sigma(w \cdot x), \quad \sigma(s) = \frac{1}{1 + e^{-s}}, \quad x_0 = 1"
            ),
            Text(
                "Where w · x = 0 it says 1/2: a straight line in the plane, in more dimensions a "
                "hyperplane, with all that is taken for a 1 on one side of it."
            ),
            Picture(
                "neuron",
                plots.lecture.neuron(points, labels, guesses),
                "Three neurons and the slide's two points. The black line is where the output is "
                "1/2. The slide's two guesses, -0.60, -0.80 with b = 0.29 and -0.91, -0.44 with "
                "0.34, have the points on the wrong sides: as they stand their losses are "
                f"{losses[names[0]][0]:.2f} and {losses[names[1]][0]:.2f}, and with the labels "
                f"exchanged {losses[names[0]][1]:.4f} and {losses[names[1]][1]:.4f}.",
                vector=False,
            ),
            Text("How wrong is it? The mean squared error over n examples:"),
            Formula(r"\mathrm{MSE} = \frac{1}{n} \sum_{i=1}^{n} (y_i - t_i)^2"),
            Table(("label t", "prediction y", "penalty"), rows),
            Code([mlp.mean_squared_error]),
        ],
        {"losses, and with the labels exchanged": losses, "penalties": penalties()},
    )


def as_layer(weights: tuple[float, ...]) -> mlp.Layer:
    """Returns w0, w1, ... as a layer of one neuron."""
    return mlp.Layer(jnp.array(weights[1:])[:, None], jnp.array(weights[:1]))
