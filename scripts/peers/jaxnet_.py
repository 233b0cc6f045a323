"""jaxnet: an epoch is one compiled program, on uint8 images."""

# ruff: noqa: E402, modules are imported without garbage collection

import gc

gc.disable()  # while modules load, as jaxnet's commands do

import functools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxnet import mlp, train
from jaxnet.cli.common import divide_cpu, use_compilation_cache
from jaxnet.data.pixels import as_float
from jaxnet.train.stream import read, stream
from jaxnet.types import Devices, Layer, Params, ValueAndGrad
from peers import STREAM, Program, Work

_STREAMED = 2_000  # rows that are read at a time

VARIANTS = {
    "jaxnet": "An epoch as one compiled scan, gradients by hand, float32.",
    "jaxnet-auto": "The same with jax.grad in the place of the gradient by hand.",
    "jaxnet-bfloat16": "The same by hand, with matrix products in bfloat16.",
}


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    gc.freeze()  # modules stay
    gc.enable()
    use_compilation_cache()
    gradient = train.GRADIENTS["auto" if variant == "jaxnet-auto" else "hand"]
    precision = "bfloat16" if variant == "jaxnet-bfloat16" else None
    if precision:
        gradient = functools.partial(gradient, precision=precision)
    optimizer = train.make_optimizer(
        work.optimizer,
        work.learning_rate,
        decay_steps=work.epochs * work.steps if work.epochs else None,
        warmup_steps=work.warmup_steps,
        beta2=work.beta2,
    )
    params = tuple(Layer(*each) for each in work.params)
    targets = np.eye(work.sizes[-1], dtype=np.uint8)[work.labels]
    if variant == STREAM:
        return _stream(work, gradient, optimizer, params, targets)
    devices = _devices(work)
    is_full = work.batch_size == len(work.images)
    place = train.shard_rows if is_full else train.replicate
    data = place((work.images, targets), devices)
    state = train.replicate(train.init_state(params, optimizer, jax.random.key(work.seed)), devices)
    microbatch = train.microbatch_size(
        state.params,
        work.batch_size,
        jax.default_backend(),
        devices=len(devices),
        precision=precision,
    )
    epoch = train.make_epoch(
        gradient, optimizer, batch_size=work.batch_size, microbatch=microbatch, devices=devices
    )
    run = epoch.lower(state, *data).compile()

    def one_epoch():
        nonlocal state
        state, losses = run(state, *data)
        return float(np.mean(jax.device_get(losses)))

    return Program(one_epoch, lambda images: _predict(state.params, images), _describe(run))


def _devices(work: Work) -> Devices:
    """Returns those that a batch of all images is sharded over: on a CPU, its cores."""
    if work.batch_size < len(work.images):
        return jax.devices()[:1]
    divide_cpu()
    return train.choose_devices(jax.devices(), work.batch_size)


def _stream(
    work: Work,
    gradient: ValueAndGrad,
    optimizer: optax.GradientTransformation,
    params: Params,
    targets: np.ndarray,
) -> Program:
    """Returns full-batch descent on images that are read from a file in every epoch."""
    images: Any = work.images  # mapped by NumPy
    paths = images.filename, Path(images.filename).with_name("targets.npy")
    np.save(paths[1], targets)
    params = jax.device_put(params)
    state = optimizer.init(params)

    def one_epoch():
        nonlocal params, state
        loss, slopes = stream(gradient, params, read(*paths, _STREAMED))
        updates, state = optimizer.update(slopes, state, params)
        updated: Any = optax.apply_updates(params, updates)
        params = updated
        return float(jax.block_until_ready(loss))

    return Program(one_epoch, lambda images: _predict(params, images))


def _predict(params: Params, images: np.ndarray) -> np.ndarray:
    return np.asarray(mlp.predict(params, as_float(images, np.float32)))


def _describe(run: jax.stages.Compiled) -> dict[str, float]:
    text = run.as_text() or ""
    names = {"products": r" dot\(", "fusions": r" fusion\(", "copies": r" (copy|transpose)\("}
    counts = {name: float(len(re.findall(pattern, text))) for name, pattern in names.items()}
    memory: Any = run.memory_analysis()
    return {"temporary_mb": memory.temp_size_in_bytes / 2**20, **counts}
