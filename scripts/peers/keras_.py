"""Keras on JAX: a Sequential of Dense layers, compiled and fitted."""

# pyright: reportMissingImports=false

import os

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported

import keras
import numpy as np

from peers import Program, Work

VARIANTS = {
    "keras": "Keras 3 on JAX: Sequential, compile and fit, an epoch a call.",
}


def squared_error(targets, outputs):
    """Returns each sample's squared error summed over the outputs; Keras's own is their mean."""
    return keras.ops.sum(keras.ops.square(outputs - targets), axis=-1)


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    keras.utils.set_random_seed(work.seed)
    inputs = work.images * np.float32(1 / 255)
    targets = keras.utils.to_categorical(work.labels, work.sizes[-1])
    rate = work.learning_rate
    if work.epochs is not None:
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if work.warmup else rate,
            work.epochs * work.steps - work.warmup_steps,
            warmup_target=rate if work.warmup else None,
            warmup_steps=work.warmup_steps,
        )
    model = keras.Sequential(
        [
            keras.Input((work.sizes[0],)),
            *(
                keras.layers.Dense(weight.shape[1], "sigmoid", use_bias=bias is not None)
                for weight, bias in work.params
            ),
        ]
    )
    model.set_weights([each for layer in work.params for each in layer if each is not None])
    if work.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, beta_2=work.beta2)
    else:
        optimizer = keras.optimizers.SGD(rate)
    together = min(work.steps, 12)  # steps a call of JAX: more win no more
    model.compile(optimizer=optimizer, loss=squared_error, steps_per_execution=together)

    def epoch():
        history = model.fit(
            inputs,
            targets,
            batch_size=work.batch_size,
            epochs=1,
            steps_per_epoch=work.steps,  # no smaller minibatch at the end
            shuffle=work.batch_size < len(inputs),
            verbose=0,  # pyright: ignore[reportArgumentType]
        )
        return float(history.history["loss"][0])

    def predict(images):
        rows = images.astype(np.float32) / 255
        return model.predict_on_batch(rows).argmax(axis=1)

    return Program(epoch, predict)
