"""NumPy: the lecture's program, with minibatches, biases and Adam added."""

import numpy as np

from peers import Program, Work

VARIANTS = {
    "numpy": "The lecture's vectorized program in float32, a minibatch a step.",
    "numpy-float64": "The lecture's vectorized program in float64, NumPy's own precision.",
}


def make(variant: str, work: Work) -> Program:
    """Returns the program; slides "Vectorized forward pass" to "Vectorized weight updates".

    Samples are columns, as on the slides: W is ``(outputs, inputs)`` and X ``(inputs, batch)``.
    """
    dtype = np.dtype("float64" if variant == "numpy-float64" else "float32")
    inputs = work.images.astype(dtype) / 255
    targets = np.eye(work.sizes[-1], dtype=dtype)[work.labels]
    weights = [weight.T.astype(dtype, order="C") for weight, _ in work.params]
    biases = [None if b is None else b.astype(dtype)[:, None] for _, b in work.params]
    params = [*weights, *(bias for bias in biases if bias is not None)]
    first, second = ([np.zeros_like(each) for each in params] for _ in range(2))  # Adam's moments
    rng = np.random.default_rng(work.seed)
    taken = 0

    activate = slides_sigmoid if variant == "numpy-float64" else sigmoid

    def forward(X):
        layers = [X]
        for W, b in zip(weights, biases, strict=True):
            layers.append(activate(W.dot(layers[-1]) if b is None else W.dot(layers[-1]) + b))
        return layers

    def backward(layers, T):
        weight_gradients, bias_gradients = [], []
        error = 2 * (layers[-1] - T) / T.shape[1]
        for W, b, below, L in zip(
            weights[::-1], biases[::-1], layers[-2::-1], layers[:0:-1], strict=True
        ):
            dW = error * (L * (1 - L))  # the slides' name for the gradient in the logits
            weight_gradients.insert(0, dW.dot(below.T))
            if b is not None:
                bias_gradients.insert(0, dW.sum(axis=1, keepdims=True))
            if below is not layers[0]:  # the slides stop at dW1 too
                error = W.T.dot(dW)
        return [*weight_gradients, *bias_gradients]

    def update(gradients):
        nonlocal taken
        rate = work.rate(taken)
        taken += 1
        for param, gradient, m, v in zip(params, gradients, first, second, strict=True):
            if work.optimizer == "adam":
                m += 0.1 * (gradient - m)
                v += (1 - work.beta2) * (gradient**2 - v)
                corrected = np.sqrt(v / (1 - work.beta2**taken)) + 1e-8
                param -= rate / (1 - 0.9**taken) * m / corrected
            else:
                param -= rate * gradient

    def step(X, T):
        layers = forward(X)
        update(backward(layers, T))
        return np.sum((layers[-1] - T) ** 2) / T.shape[1]

    def epoch():
        if work.batch_size == len(inputs):
            return float(step(inputs.T, targets.T))
        order = rng.permutation(len(inputs))[: work.steps * work.batch_size]
        batches = order.reshape(work.steps, -1)
        return float(np.mean([step(inputs[batch].T, targets[batch].T) for batch in batches]))

    def predict(images):
        return forward((images.astype(dtype) / 255).T)[-1].argmax(axis=0)

    return Program(epoch, predict)


def slides_sigmoid(x):
    """Returns the logistic sigmoid as the slide writes it."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.e ** (-x))


def sigmoid(z):
    """Returns the logistic sigmoid; exp may overflow to infinity, whose inverse, 0, is right."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))
