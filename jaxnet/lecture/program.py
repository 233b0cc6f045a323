"""The last slides' vectorised program, all of its iterations."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import backprop, data, mlp, optimizers, plots
from jaxnet.lecture.page import Code, Picture, Section, Table, Text

_SHOWN = (0, 100, 1000)  # iterations after which weights are shown, beside the last
_CHUNK = 100  # iterations in one call of the device, after which progress is shown


def section(
    examples: data.Dataset, steps: int = 5000, say: Callable[[int], None] = lambda done: None
) -> Section:
    """The last slides' program, all of its iterations, on images without a validation set."""
    pixels = examples.train.inputs.shape[1]
    sizes = (pixels, 256, 128, 10)
    # The slide's three lines, from one seed: 2*rand(784, 256).T - 1, and so on.
    draw = np.random.RandomState(0).rand
    params = tuple(
        mlp.Layer(jnp.asarray(2 * draw(*shape) - 1, jnp.result_type(float)))
        for shape in itertools.pairwise(sizes)
    )
    inputs, targets = map(jnp.asarray, examples.train)
    test = tuple(map(jnp.asarray, examples.test))
    descent = optimizers.gradient_descent(0.3)
    moments = sorted({m for m in (0, 100, 500, 1000, 2000, 3000, 4000) if m < steps} | {steps})
    losses: list[float] = []
    accuracies, kernels, done = {}, {}, 0
    for moment in moments:
        while done < moment:
            count = min(_CHUNK, moment - done)
            params, history = optimizers.minimize(
                descent,
                backprop.value_and_grad,
                params,
                inputs,
                targets,
                key=jax.random.key(0),
                steps=count,
            )
            losses += np.asarray(history.values, float).tolist()
            done += count
            say(done)
        accuracies[moment] = float(mlp.accuracy(params, *test))
        if moment in _SHOWN or moment == steps:
            kernels[f"{moment:,}"] = np.asarray(params[0].weight)
    kernels["change"] = kernels[f"{steps:,}"] - kernels["0"]
    loss_at = {m: losses[min(m, steps - 1)] for m in moments}  # of the last, before its update
    n = len(inputs)
    shapes = [
        ("`X`", f"{pixels} x {n:,}", "`inputs`", f"({n:,}, {pixels})"),
        ("`W1`", f"256 x {pixels}", "`params[0].weight`", f"({pixels}, 256)"),
        (
            "`L1 = sigmoid(W1.dot(X))`",
            f"256 x {n:,}",
            "`sigmoid(inputs @ weight)`",
            f"({n:,}, 256)",
        ),
        ("`L2 = sigmoid(W2.dot(L1))`", f"128 x {n:,}", "the same, next layer", f"({n:,}, 128)"),
        ("`L3 = sigmoid(W3.dot(L2))`", f"10 x {n:,}", "outputs", f"({n:,}, 10)"),
        ("`dW3 = (L3 - T) * L3*(1 - L3)`", f"10 x {n:,}", "`delta`", f"({n:,}, 10)"),
        ("`np.dot(dW3, L2.T)`", "10 x 128", "gradient of `params[2].weight`", "(128, 10)"),
    ]
    rows = [(f"{m:,}", f"{loss_at[m]:.4f}", f"{accuracies[m]:.4f}") for m in moments]
    return Section(
        "program",
        "The vectorised program",
        "Vectorized forward pass; Vectorized backward pass; Vectorized weight updates",
        [
            Text(
                "All images go through the network at once. The slides have them as columns, "
                "`W.dot(X)`; here they are rows, `inputs @ weight`, and every matrix is the "
                "other's transpose."
            ),
            Table(("slide", "shape", "here", "shape"), shapes),
            Text(
                f"The slide's loop on {n:,} images of {examples.name}, {steps:,} iterations, from "
                "the weights of `RandomState(0)`. Its learning rate of 1e-5 multiplies a "
                "gradient that is summed over 60,000 images without the factor 2: on the mean it "
                "is 0.3, which is used here whatever the number of images."
            ),
            Picture(
                "program",
                plots.lecture.program(losses, accuracies),
                "The loss at every iteration, and the share of test images that are recognised.",
            ),
            Table(("iteration", "MSE loss", "test accuracy"), rows),
            Picture(
                "kernels",
                plots.lecture.kernels(kernels, examples.image_shape),
                "First-layer weights of ten units, after so many iterations. They began so large "
                "that what they learn is hardly to be seen in them; the last row is that alone, in "
                "scales of its own.",
                vector=False,
            ),
            Code([backprop.value_and_grad, backprop._forward, backprop._backward]),
        ],
        {
            "dataset": examples.name,
            "images": n,
            "iterations": steps,
            "loss": {str(m): loss for m, loss in loss_at.items()},
            "test accuracy": {str(m): each for m, each in accuracies.items()},
        },
    )
