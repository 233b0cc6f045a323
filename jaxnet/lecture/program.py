"""The last slides' vectorised program, run for all of its iterations."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import backprop, data, mlp, optimizers, plots, train
from jaxnet.lecture.page import Code, Picture, Section, Table, Text, named
from jaxnet.types import Layer

__all__ = ["Run", "run", "section"]

_SHOWN = (0, 100, 1000)  # iterations after which the page shows the weights; and after the last
_MEASURED = (0, 100, 500, 1000, 2000, 3000, 4000)  # the same for the test accuracy
_STEPS_A_CALL = 100  # iterations in one compiled call; progress is reported after each


class Run(NamedTuple):
    """What the program found.

    Attributes:
      losses: the loss on the training images, before each iteration and after the last.
      accuracies: the accuracy on the test images, by iterations done.
      weights: the first layer's weights, ``(pixels, 256)``, by iterations done.
    """

    losses: list[float]
    accuracies: dict[int, float]
    weights: dict[int, np.ndarray]


def run(examples: data.Dataset, *, steps: int, say: Callable[[int], None]) -> Run:
    """Runs the program: gradient descent on all training images at once.

    Args:
      examples: images without a validation set.
      steps: the number of iterations.
      say: is called with the number of iterations done.
    """
    sizes = (examples.train.inputs.shape[1], 256, 128, examples.train.targets.shape[1])
    # The slide's three lines, with one seed: 2*rand(784, 256).T - 1, and so on.
    draw = np.random.RandomState(0).rand
    params = tuple(
        Layer(jnp.asarray(2 * draw(*shape) - 1, jnp.result_type(float)))
        for shape in itertools.pairwise(sizes)
    )
    inputs, targets = map(jnp.asarray, examples.train)
    test = tuple(map(jnp.asarray, examples.test))
    descent = optimizers.gradient_descent(0.3)
    rows = train.microbatch_size(params, len(inputs), jax.default_backend())
    gradient = train.accumulate(backprop.value_and_grad, rows)
    found = Run([], {}, {})
    done = 0
    for moment in sorted({m for m in _MEASURED if m < steps} | {steps}):
        while done < moment:
            count = min(_STEPS_A_CALL, moment - done)
            params, history = optimizers.minimize(
                descent, gradient, params, inputs, targets, key=jax.random.key(0), steps=count
            )
            found.losses.extend(np.asarray(history.values, float).tolist())
            done += count
            say(done)
        found.accuracies[moment] = float(mlp.accuracy(params, *test))
        if moment in _SHOWN or moment == steps:
            found.weights[moment] = np.asarray(params[0].weight)
    found.losses.append(float(mlp.loss(params, inputs, targets)))
    return found


def section(
    examples: data.Dataset,
    *,
    steps: int = 5000,
    say: Callable[[int], None] = lambda done: None,
) -> Section:
    """Returns the section on the vectorised program; the arguments are those of `run`."""
    losses, accuracies, weights = run(examples, steps=steps, say=say)
    loss_at = {moment: losses[moment] for moment in accuracies}
    kernels = {f"{moment:,}": weight for moment, weight in weights.items()}
    kernels["change"] = weights[steps] - weights[0]
    n, pixels = examples.train.inputs.shape
    outputs = examples.train.targets.shape[1]
    return Section(
        "program",
        "The vectorised program",
        "Vectorized forward pass; Vectorized backward pass; Vectorized weight updates",
        [
            Text(
                "All images go through the network at once. On the slides an image is a column, "
                "`W.dot(X)`; here it is a row, `inputs @ weight`, so every matrix is the transpose "
                "of the slide's. Besides, `delta` and `gradient` have a factor 2/n from the mean "
                "squared error, which the slides leave out. (Two notes on the slides. Where one "
                "gives dW3, dW2 and dW1 the shapes of the weights, it means the gradients of the "
                "weights. And the derivative of (L3 - T)² is 2 (L3 - T), not 2 (T - L3).)"
            ),
            Table(
                ("slide", "shape", f"here, on {examples.name}", "shape"),
                _shapes(n, pixels, outputs),
            ),
            Text(
                f"The slide's loop runs here for {steps:,} iteration{'s' if steps > 1 else ''} on "
                f"{n:,} images of {examples.name}, from the initial weights of `RandomState(0)`. "
                "The slide's learning rate is 1e-5, for a gradient that is summed over 60,000 "
                "images and lacks the factor 2. For the gradient of the mean this is "
                "1e-5 · 60,000 / 2 = 0.3, which is used here for any number of images."
            ),
            Picture(
                "program",
                plots.lecture.program(losses, accuracies),
                "Loss on the training images and accuracy on the test images, over the iterations.",
            ),
            Table(
                ("iterations done", "MSE loss", "test accuracy"),
                [(f"{m:,}", f"{loss_at[m]:.4f}", f"{accuracies[m]:.4f}") for m in accuracies],
            ),
            Picture(
                "kernels",
                plots.lecture.kernels(kernels, examples.image_shape),
                "First-layer weights of ten units, a row for each number of iterations. A bright "
                "pixel raises the unit's output where the weight is red, and lowers it where the "
                "weight is blue. The initial weights are so large that one hardly sees what "
                "training changes; the last row shows the change alone. Each picture has its own "
                "colour scale.",
                vector=False,
            ),
            Code([backprop.value_and_grad, *named(backprop, "_forward", "_backward")]),
        ],
        {
            "dataset": examples.name,
            "images": n,
            "iterations": steps,
            "loss": {str(m): loss for m, loss in loss_at.items()},
            "test accuracy": {str(m): each for m, each in accuracies.items()},
        },
    )


def _shapes(n: int, pixels: int, outputs: int) -> list[tuple[str, str, str, str]]:
    """Returns the slides' matrices beside those of `backprop`."""
    return [
        ("`X`", "784 x 60,000", "`inputs`", f"({n:,}, {pixels})"),
        ("`T`", "10 x 60,000", "`targets`", f"({n:,}, {outputs})"),
        ("`W1`", "256 x 784", "`params[0].weight`", f"({pixels}, 256)"),
        ("`W2`", "128 x 256", "`params[1].weight`", "(256, 128)"),
        ("`W3`", "10 x 128", "`params[2].weight`", f"(128, {outputs})"),
        ("`L1 = sigmoid(W1.dot(X))`", "256 x 60,000", "`layers[1]`", f"({n:,}, 256)"),
        ("`L2 = sigmoid(W2.dot(L1))`", "128 x 60,000", "`layers[2]`", f"({n:,}, 128)"),
        ("`L3 = sigmoid(W3.dot(L2))`", "10 x 60,000", "`layers[3]`", f"({n:,}, {outputs})"),
        (
            "`dW3 = (L3 - T) * L3*(1 - L3)`",
            "10 x 60,000",
            "`delta`, first round of the loop",
            f"({n:,}, {outputs})",
        ),
        (
            "`dW2 = W3.T.dot(dW3) * (L2*(1 - L2))`",
            "128 x 60,000",
            "`delta`, second round",
            f"({n:,}, 128)",
        ),
        (
            "`dW1 = W2.T.dot(dW2) * (L1*(1 - L1))`",
            "256 x 60,000",
            "`delta`, third round",
            f"({n:,}, 256)",
        ),
        ("`W3 -= lr*np.dot(dW3, L2.T)`", "10 x 128", "`gradient[2].weight`", f"(128, {outputs})"),
        ("`W2 -= lr*np.dot(dW2, L1.T)`", "128 x 256", "`gradient[1].weight`", "(256, 128)"),
        ("`W1 -= lr*np.dot(dW1, X.T)`", "256 x 784", "`gradient[0].weight`", f"({pixels}, 256)"),
    ]
