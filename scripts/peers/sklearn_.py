"""scikit-learn: MLPClassifier on indicators of the classes, whose outputs are sigmoids."""

import numpy as np
from sklearn.neural_network import MLPClassifier

from peers import Program, Work

VARIANTS = {
    "sklearn": (
        "MLPClassifier, as many outputs with a sigmoid each, but of the log-loss (it has no "
        "squared error of sigmoids), with biases always, and what is left of the images as a last, "
        "smaller minibatch."
    ),
}


def make(variant: str, work: Work) -> Program:
    """Returns the program.

    Raises:
      ValueError: a learning rate that falls along a cosine, which scikit-learn has not.
    """
    if work.epochs is not None:
        raise ValueError(f"{variant} has no cosine decay of the learning rate")
    inputs = work.images.astype(np.float32) / 255
    targets = np.eye(work.sizes[-1], dtype=int)[work.labels]  # indicators: no softmax
    model = MLPClassifier(
        hidden_layer_sizes=work.sizes[1:-1],
        activation="logistic",
        solver=work.optimizer,
        alpha=0,
        batch_size=work.batch_size,  # pyright: ignore[reportArgumentType]
        learning_rate_init=work.learning_rate,
        momentum=0,
        nesterovs_momentum=False,
        shuffle=work.batch_size < len(inputs),
        random_state=np.random.RandomState(work.seed),  # an int would give each epoch one order
    )
    classes = np.arange(work.sizes[-1])
    model.partial_fit(inputs[: work.batch_size], targets[: work.batch_size], classes=classes)
    for (weight, bias), coefs, intercepts in zip(
        work.params, model.coefs_, model.intercepts_, strict=True
    ):
        coefs[:] = weight
        intercepts[:] = 0 if bias is None else bias
    del model._optimizer  # what Adam knows of the step that made the arrays

    def epoch():
        model.partial_fit(inputs, targets)
        return float(model.loss_)

    def predict(images):
        return np.argmax(model.predict_proba(images.astype(np.float32) / 255), axis=1)

    return Program(epoch, predict)
