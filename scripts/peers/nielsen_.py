"""The algorithm of network.py in Nielsen's "Neural Networks and Deep Learning" (2015), chapter 1.

Written anew: gradients of one sample at a time, as columns, added up over a minibatch.
"""

import random

import numpy as np

from peers import Program, Work

VARIANTS = {
    "nielsen": "Nielsen's algorithm in NumPy: backpropagation of one sample at a time, plain SGD.",
}


def make(variant: str, work: Work) -> Program:
    """Returns the program.

    Raises:
      ValueError: another optimizer than SGD, or a learning rate that falls.
    """
    if work.optimizer != "sgd" or work.epochs is not None:
        raise ValueError(f"{variant} has plain SGD with a constant learning rate only")
    weights = [weight.T.astype(float) for weight, _ in work.params]  # (outputs, inputs)
    has_bias = work.params[0][1] is not None
    biases = [
        np.zeros((weight.shape[1], 1)) if bias is None else bias.astype(float)[:, None]
        for weight, bias in work.params
    ]
    one_hot = np.eye(work.sizes[-1])
    samples = [
        (image[:, None], one_hot[label][:, None])
        for image, label in zip(work.images.astype(np.float32) / 255, work.labels, strict=True)
    ]
    rng = random.Random(work.seed)

    def forward(x):
        activations = [x]
        for w, b in zip(weights, biases, strict=True):
            activations.append(sigmoid(np.dot(w, activations[-1]) + b))
        return activations

    def backpropagate(x, y):
        activations = forward(x)
        error = activations[-1] - y
        loss = np.sum(error**2)
        error = 2 * error  # the book's cost has 1/2 before the square
        gradient = []
        for w, below, a in zip(weights[::-1], activations[-2::-1], activations[:0:-1], strict=True):
            delta = error * a * (1 - a)
            gradient.append((np.dot(delta, below.T), delta))
            error = np.dot(w.T, delta)
        return loss, gradient[::-1]

    def step(batch):
        weight_sums = [np.zeros_like(w) for w in weights]
        bias_sums = [np.zeros_like(b) for b in biases]
        total = 0.0
        for x, y in batch:
            loss, gradient = backpropagate(x, y)
            total += loss
            for w, b, (in_w, in_b) in zip(weight_sums, bias_sums, gradient, strict=True):
                w += in_w
                b += in_b
        rate = work.learning_rate / len(batch)
        for w, b, w_sum, b_sum in zip(weights, biases, weight_sums, bias_sums, strict=True):
            w -= rate * w_sum
            if has_bias:
                b -= rate * b_sum
        return total / len(batch)

    def epoch():
        if work.batch_size < len(samples):
            rng.shuffle(samples)
        starts = range(0, work.steps * work.batch_size, work.batch_size)
        return float(np.mean([step(samples[i : i + work.batch_size]) for i in starts]))

    def predict(images):
        columns = (images.astype(np.float32) / 255)[:, :, None]
        return np.array([np.argmax(forward(x)[-1]) for x in columns])

    return Program(epoch, predict)


def sigmoid(z):
    """Returns the logistic sigmoid; exp may overflow to infinity, whose inverse, 0, is right."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-z))
