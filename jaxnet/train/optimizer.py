"""optax's optimizers by name, with their learning-rate schedules."""

import math

import optax

__all__ = ["OPTIMIZERS", "SCHEDULES", "make_optimizer"]

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("cosine", "constant")


def make_optimizer(
    name: str,
    learning_rate: float,
    *,
    decay_steps: int | None = None,
    warmup_steps: int = 0,
    beta2: float = 0.999,
) -> optax.GradientTransformation:
    """Returns an optax optimizer by name.

    Args:
      name: ``"sgd"``, ``"momentum"`` (0.9), ``"adam"`` or ``"adamw"``, with optax's defaults.
      learning_rate: positive; the peak of the schedule.
      decay_steps: after so many steps the learning rate has fallen to 0 along a cosine; None keeps
        it constant.
      warmup_steps: of these, the first in which it rises linearly from 0.
      beta2: decay of squared gradients in ``"adam"`` and ``"adamw"``, in [0, 1).

    Raises:
      ValueError: an unknown name, a learning rate that is not positive and finite, a warm-up that
        is not shorter than the decay, or ``beta2`` outside [0, 1).

    References:
      Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017.

    Example:
      >>> optimizer = make_optimizer("adam", 0.01, decay_steps=1_000, warmup_steps=100)
      >>> isinstance(optimizer, optax.GradientTransformation)
      True
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    if not 0 <= beta2 < 1:
        raise ValueError(f"beta2 must be in [0, 1), got {beta2}")
    if warmup_steps and not 0 < warmup_steps < (decay_steps or 0):
        raise ValueError(
            f"warmup_steps must be from 0 to below decay_steps, {decay_steps}, got {warmup_steps}"
        )
    rate = learning_rate
    if warmup_steps:
        rate = optax.warmup_cosine_decay_schedule(0, rate, warmup_steps, decay_steps or 0)
    elif decay_steps is not None:
        rate = optax.cosine_decay_schedule(rate, decay_steps)
    if name in ("sgd", "momentum"):
        return optax.sgd(rate, momentum=0.9 if name == "momentum" else None)
    return getattr(optax, name)(rate, b2=beta2)
