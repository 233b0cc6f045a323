"""jaxnet: an epoch is one compiled program, on images as bytes."""

import gc

gc.disable()  # while modules load, as train.py does

import functools
import itertools
import re
from pathlib import Path
from typing import Any

import cli
import jax
import numpy as np
import optax

from jaxnet import batches, mlp, train
from jaxnet.mlp import Layer
from peers import STREAM, Program, Work

_STREAMED = 2_000  # rows at a time

VARIANTS = {
    "jaxnet": "An epoch as one compiled scan, gradients by hand, float32.",
    "jaxnet-auto": "The same with jax.grad in the place of the gradient by hand.",
    "jaxnet-bfloat16": "The same by hand, with products in bfloat16.",
}


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    cli.collect_garbage()
    cli.use_compilation_cache()
    devices = [] if variant == STREAM else _devices(work)
    gradient = train.GRADIENTS["auto" if variant == "jaxnet-auto" else "hand"]
    precision = "bfloat16" if variant == "jaxnet-bfloat16" else None
    if precision:
        gradient = functools.partial(gradient, precision=precision)
    steps = work.epochs * work.steps if work.epochs else None
    optimizer = train.make_optimizer(
        work.optimizer,
        work.learning_rate,
        decay_steps=steps,
        warmup_steps=work.warmup_steps,
        beta2=work.beta2,
    )
    params = jax.device_put(tuple(Layer(*each) for each in work.params))
    state = train.TrainState(params, optimizer.init(params))
    targets = np.eye(work.sizes[-1], dtype=np.uint8)[work.labels]
    if variant == STREAM:
        return _stream(work, gradient, optimizer, state, targets)
    is_full = work.batch_size == len(work.images)
    state, key = batches.place((state, jax.random.key(work.seed)), devices, rows=False)
    data = batches.place((work.images, targets), devices, rows=is_full)
    backend = jax.default_backend()
    chunk = batches.rows_per_chunk(
        params, work.batch_size, backend, len(devices), precision=precision
    )
    epoch = train.make_epoch(gradient, optimizer, work.batch_size, chunk, devices)
    run = epoch.lower(state, key, np.uint32(1), *data).compile()
    numbers = itertools.count(1)

    def one_epoch():
        nonlocal state
        state, losses = run(state, key, jax.device_put(np.uint32(next(numbers))), *data)
        return float(np.mean(jax.device_get(losses)))

    return Program(one_epoch, lambda images: _predict(state.params, images), _describe(run))


def _devices(work: Work) -> batches.Devices:
    """Returns those that share a batch of all images: the cores of a CPU, as train.py has it."""
    if work.batch_size < len(work.images):
        return jax.devices()[:1]
    cli.divide_cpu()
    return batches.choose_devices(jax.devices(), work.batch_size)


def _stream(work, gradient, optimizer, state, targets) -> Program:
    """Returns full-batch descent on images that lie in a file."""
    paths = (work.images.filename, Path(work.images.filename).with_name("targets.npy"))
    np.save(paths[1], targets)

    def one_epoch():
        nonlocal state
        chunks = batches.read(*paths, _STREAMED)
        loss, slopes = batches.stream(gradient, state.params, chunks)
        updates, inner = optimizer.update(slopes, state.optimizer_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        state = train.TrainState(params, inner)
        return float(jax.block_until_ready(loss))

    return Program(one_epoch, lambda images: _predict(state.params, images))


def _predict(params, images) -> np.ndarray:
    return np.asarray(mlp.predict(params, batches.as_float(images, np.float32)))


def _describe(run: jax.stages.Compiled) -> dict[str, float]:
    text = run.as_text() or ""
    names = {"products": r" dot\(", "fusions": r" fusion\(", "copies": r" (copy|transpose)\("}
    counts = {name: float(len(re.findall(pattern, text))) for name, pattern in names.items()}
    memory: Any = run.memory_analysis()
    return {"temporary_mb": memory.temp_size_in_bytes / 2**20, **counts}
