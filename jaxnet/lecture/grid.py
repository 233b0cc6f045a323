"""A digit on the slide's grid, forward through a network and back."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import backprop, mlp, optimizers, plots
from jaxnet.data import glyphs
from jaxnet.lecture.page import Code, Picture, Section, Text


def section() -> Section:
    """A digit on the slide's grid, forward through a network and back."""
    drawn = glyphs.draw(jax.random.key(0), 2000, noise=0.05)
    clean = glyphs.glyphs()
    before = mlp.init(jax.random.key(1), (25, 20, 10), scheme="lecture")
    after, _ = optimizers.minimize(
        optimizers.gradient_descent(1.0),
        backprop.value_and_grad,
        before,
        drawn.inputs,
        drawn.targets,
        key=jax.random.key(2),
        steps=3000,
    )
    digit = 3
    names = ("pixels 0 to 24", "hidden layer", "output")
    pictures, norms = [], {}
    for moment, params in (("before", before), ("after", after)):
        one, target = (jnp.asarray(each[digit : digit + 1]) for each in clean)
        layers = [np.asarray(each)[0] for each in mlp.activations(params, one)]
        _, gradient = backprop.value_and_grad(params, one, target)
        norms[moment] = float(
            np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
        )
        pictures += [
            Picture(
                f"forward_{moment}",
                plots.lecture.activations(layers, names, glyphs.IMAGE_SHAPE, np.asarray(target)[0]),
                f"Forward, {moment} training: bar length is the level of activation. "
                "Green: the pixels; purple: what should come out.",
            ),
            Picture(
                f"backward_{moment}",
                plots.lecture.backward(
                    [np.asarray(layer.weight) for layer in gradient],
                    ("pixels to hidden layer", "hidden layer to output"),
                    f"Gradient of each weight, {moment} training",
                ),
                f"Back, {moment} training: how the error would have every weight changed, red "
                "down and blue up. A pixel that is 0 changes none of its weights.",
                vector=False,
            ),
        ]
    accuracy = float(mlp.accuracy(after, clean.inputs, clean.targets))
    return Section(
        "grid",
        "Layers: forward, and back",
        "Feedforward networks; Forward propagation; Backpropagation",
        [
            Text(
                "Ten digits on the slide's grid of 5 x 5 pixels, drawn for this page, go through a "
                "network 25-20-10. Each neuron is a logistic regression of the layer before it."
            ),
            pictures[0],
            Text(
                "The target for a 3 is a 1 at output 3 and 0 elsewhere. The error at the output "
                "goes back through the same weights, and every weight gets its gradient: what "
                "came in on its left, times the error that came back on its right."
            ),
            pictures[1],
            Text(
                f"After 3,000 steps on noisy digits, {10 * accuracy:.0f} of the ten clean ones "
                "are recognised."
            ),
            *pictures[2:],
            Code([mlp.activations, backprop.value_and_grad]),
        ],
        {"accuracy on the ten clean digits": accuracy, "gradient's norm": norms},
    )
