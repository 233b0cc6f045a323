"""Training on the device: an epoch is one compiled program."""

from jaxnet.train.epoch import (
    DivergedError,
    TrainState,
    init_state,
    make_debug_epoch,
    make_epoch,
    make_epochs,
)
from jaxnet.train.evaluate import Evaluation, evaluate, loss_and_accuracy
from jaxnet.train.fit import GRADIENTS, Fit, Metrics, Trainer, fit, prepare
from jaxnet.train.microbatch import accumulate, microbatch_size
from jaxnet.train.optimizer import OPTIMIZERS, SCHEDULES, make_optimizer
from jaxnet.train.order import draw, steps_per_epoch
from jaxnet.train.sharding import choose_devices, replicate, shard, shard_rows

__all__ = [
    "GRADIENTS",
    "OPTIMIZERS",
    "SCHEDULES",
    "DivergedError",
    "Evaluation",
    "Fit",
    "Metrics",
    "TrainState",
    "Trainer",
    "accumulate",
    "choose_devices",
    "draw",
    "evaluate",
    "fit",
    "init_state",
    "loss_and_accuracy",
    "make_debug_epoch",
    "make_epoch",
    "make_epochs",
    "make_optimizer",
    "microbatch_size",
    "prepare",
    "replicate",
    "shard",
    "shard_rows",
    "steps_per_epoch",
]
