"""The last slides' vectorised program, all of its iterations."""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import backprop, data, mlp, optimizers, plots, train
from jaxnet.lecture.page import Code, Picture, Section, Table, Text

_SHOWN = (0, 100, 1000)  # iterations after which weights are shown, beside the last
_CHUNK = 100  # iterations in one call of the device, after which progress is shown


def section(
    examples: data.Dataset, steps: int = 5000, say: Callable[[int], None] = lambda done: None
) -> Section:
    """The last slides' program, all of its iterations, on images without a validation set."""
    pixels, outputs = examples.train.inputs.shape[1], examples.train.targets.shape[1]
    sizes = (pixels, 256, 128, outputs)
    # The slide's three lines, from one seed: 2*rand(784, 256).T - 1, and so on.
    draw = np.random.RandomState(0).rand
    params = tuple(
        mlp.Layer(jnp.asarray(2 * draw(*shape) - 1, jnp.result_type(float)))
        for shape in itertools.pairwise(sizes)
    )
    inputs, targets = map(jnp.asarray, examples.train)
    test = tuple(map(jnp.asarray, examples.test))
    descent = optimizers.gradient_descent(0.3)
    rows = train.microbatch_size(params, len(inputs), jax.default_backend())
    gradient = train.accumulate(backprop.value_and_grad, rows)
    moments = sorted({m for m in (0, 100, 500, 1000, 2000, 3000, 4000) if m < steps} | {steps})
    losses: list[float] = []
    accuracies, kernels, done = {}, {}, 0
    for moment in moments:
        while done < moment:
            count = min(_CHUNK, moment - done)
            params, history = optimizers.minimize(
                descent,
                gradient,
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
    losses.append(float(mlp.loss(params, inputs, targets)))
    loss_at = {m: losses[m] for m in moments}
    n = len(inputs)
    shapes = [
        ("`X`", "784 x 60,000", "`inputs`", f"({n:,}, {pixels})"),
        ("`T`", "10 x 60,000", "`targets`", f"({n:,}, {outputs})"),
        ("`W1`", "256 x 784", "`params[0].weight`", f"({pixels}, 256)"),
        ("`W2`", "128 x 256", "`params[1].weight`", "(256, 128)"),
        ("`W3`", "10 x 128", "`params[2].weight`", f"(128, {outputs})"),
        ("`L1 = sigmoid(W1.dot(X))`", "256 x 60,000", "`activations[1]`", f"({n:,}, 256)"),
        ("`L2 = sigmoid(W2.dot(L1))`", "128 x 60,000", "`activations[2]`", f"({n:,}, 128)"),
        ("`L3 = sigmoid(W3.dot(L2))`", "10 x 60,000", "`activations[3]`", f"({n:,}, {outputs})"),
        (
            "`dW3 = (L3 - T) * L3*(1 - L3)`",
            "10 x 60,000",
            "`delta`, first turn",
            f"({n:,}, {outputs})",
        ),
        (
            "`dW2 = W3.T.dot(dW3) * (L2*(1 - L2))`",
            "128 x 60,000",
            "`delta`, second turn",
            f"({n:,}, 128)",
        ),
        (
            "`dW1 = W2.T.dot(dW2) * (L1*(1 - L1))`",
            "256 x 60,000",
            "`delta`, third turn",
            f"({n:,}, 256)",
        ),
        ("`W3 -= lr*np.dot(dW3, L2.T)`", "10 x 128", "`gradient[2].weight`", f"(128, {outputs})"),
        ("`W2 -= lr*np.dot(dW2, L1.T)`", "128 x 256", "`gradient[1].weight`", "(256, 128)"),
        ("`W1 -= lr*np.dot(dW1, X.T)`", "256 x 784", "`gradient[0].weight`", f"({pixels}, 256)"),
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
                "other's transpose, `delta` and `gradient` times 2/n as well: the slides drop the "
                "2 and do not divide. (Where a slide gives the shape of dW3, dW2 and dW1 as that "
                "of the weights, it means their gradients; and the derivative of (L3 - T)² is "
                "2 (L3 - T), not 2 (T - L3).)"
            ),
            Table(("slide", "shape", f"here, on {examples.name}", "shape"), shapes),
            Text(
                f"The slide's loop on {n:,} images of {examples.name}, {steps:,} iteration"
                f"{'s' if steps > 1 else ''}, from "
                "the weights of `RandomState(0)`. Its learning rate of 1e-5 multiplies a "
                "gradient that is summed over 60,000 images without the factor 2: on the mean it "
                "is 0.3, which is used here whatever the number of images."
            ),
            Picture(
                "program",
                plots.lecture.program(losses, accuracies),
                "The loss of the training images, and the share of test images that are "
                "recognised, after so many iterations.",
            ),
            Table(("iterations done", "MSE loss", "test accuracy"), rows),
            Picture(
                "kernels",
                plots.lecture.kernels(kernels, examples.image_shape),
                "First-layer weights of ten units, after so many iterations: red where a bright "
                "pixel speaks for the unit, blue where against it. They began so large that what "
                "they learn is hardly to be seen in them; the last row is that alone, in scales "
                "of its own.",
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
