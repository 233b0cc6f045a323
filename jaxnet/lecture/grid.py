"""A digit on the slide's grid: its forward and backward pass through a network."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import backprop, mlp, optimizers, plots
from jaxnet.data import glyphs
from jaxnet.lecture.page import Code, Picture, Section, Text

__all__ = ["section"]


def section() -> Section:
    """Returns the section on the forward and backward pass of a digit on the slide's grid."""
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
                f"Forward pass, {moment} training. Green: the pixels; blue bars: the activations; "
                "purple: the target.",
            ),
            Picture(
                f"backward_{moment}",
                plots.lecture.backward(
                    [np.asarray(layer.weight) for layer in gradient],
                    ("pixels to hidden layer", "hidden layer to output"),
                    f"Gradient of each weight, {moment} training",
                ),
                f"Backward pass, {moment} training: the gradient of every weight. A step of "
                "gradient descent lowers the weights that are red and raises those that are blue. "
                "The weights of a pixel that is 0 have gradient 0.",
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
                "Ten digits, drawn for this page on the slide's grid of 5 x 5 pixels, go through a "
                "25-20-10 network. Each neuron is a logistic regression on the layer before it. "
                "The pictures show the 3."
            ),
            pictures[0],
            Text(
                "The target of a 3 is 1 at output 3 and 0 at all others. The error at the output "
                "goes back through the same weights. The gradient of a weight is the activation "
                "that goes into it, times the error of the neuron that it leads to."
            ),
            pictures[1],
            Text(
                f"After 3,000 steps on noisy digits, the network recognises {10 * accuracy:.0f} of "
                "the ten clean ones."
            ),
            *pictures[2:],
            Code([mlp.activations, backprop.value_and_grad]),
        ],
        {"accuracy on the ten clean digits": accuracy, "gradient's norm": norms},
    )
