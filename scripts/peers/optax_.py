"""The optimizer that the libraries on JAX share."""

import optax

from peers import Work


def transformation(work: Work) -> optax.GradientTransformation:
    """Returns the optimizer of the work."""
    rate = work.learning_rate
    if work.epochs is not None:
        rate = optax.warmup_cosine_decay_schedule(
            0 if work.warmup else rate, rate, work.warmup_steps, work.epochs * work.steps
        )
    return optax.adam(rate, b2=work.beta2) if work.optimizer == "adam" else optax.sgd(rate)
