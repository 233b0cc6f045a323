"""Pieces of larger models: convolutions, normalisations, attention, Fourier transforms."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from studies.gradcheck.functions.drawing import Draw, Drawn
from studies.gradcheck.functions.networks import ACTIVATIONS

__all__ = ["attention", "convolution", "normalisation", "spectrum"]


def convolution(draw: Draw) -> Drawn:
    """Draws a convolutional network in one or two dimensions."""
    dimensions, layers = draw.integer(1, 2), draw.integer(1, 3)
    padding, pool = draw.choose(("SAME", "VALID")), draw.choose(("mean", "max", "none"))
    activation, stride = draw.choose(tuple(ACTIVATIONS)), draw.integer(1, 2)
    batch, side = draw.integer(1, 8), draw.integer(8, 16)
    channels = [draw.log_integer(1, 8) for _ in range(layers + 1)]
    numbers = ("NWC", "WIO", "NWC") if dimensions == 1 else ("NHWC", "HWIO", "NHWC")
    kernels, rest = [], side
    for below, above in itertools.pairwise(channels):
        kernel = draw.integer(1, min(4, rest))
        rest = -(-rest // stride) if padding == "SAME" else (rest - kernel) // stride + 1
        fan_in = below * kernel**dimensions
        shape = [kernel] * dimensions + [below, above]
        scale = draw.log_uniform(0.5, 3) / math.sqrt(fan_in)
        kernels.append({"kernel": draw.normal(*shape, scale=scale), "bias": draw.normal(above)})

    def f(params, images, readout):
        hidden = images
        for layer in params:
            hidden = lax.conv_general_dilated(
                hidden, layer["kernel"], (stride,) * dimensions, padding, dimension_numbers=numbers
            )
            hidden = ACTIVATIONS[activation][0](hidden + layer["bias"])
        places = tuple(range(1, dimensions + 1))
        if pool == "none":
            return jnp.mean((hidden @ readout - 0.5) ** 2)
        hidden = hidden.mean(places) if pool == "mean" else hidden.max(places)
        return jnp.sum((hidden @ readout - 0.5) ** 2)

    images = draw.normal(batch, *[side] * dimensions, channels[0])
    details = (
        f"{dimensions}-d, {layers} layers, {padding}, stride {stride}, {activation}, pool {pool}"
    )
    return details, f, (kernels, images, draw.normal(channels[-1]))


def normalisation(draw: Draw) -> Drawn:
    """Draws a normalised layer, with inputs of any scale and offset."""
    kind = draw.choose(("layer norm", "RMS norm", "batch norm", "unit weights"))
    batch, width = draw.log_integer(4, 64), draw.log_integer(4, 128)
    scale, offset = draw.log_uniform(1e-3, 1e4), draw.log_uniform(1e-3, 100)
    inputs = scale * (draw.normal(batch, width) + np.float32(offset))
    leaves = {
        "inputs": inputs.astype(np.float32),
        "gain": 1 + draw.normal(width, scale=0.3),
        "bias": draw.normal(width),
    }
    axis = 0 if kind == "batch norm" else 1

    def f(leaves, weights):
        inputs = leaves["inputs"]
        if kind == "unit weights":
            inputs = inputs / jnp.linalg.norm(inputs, axis=0) * math.sqrt(batch)
        else:
            if kind != "RMS norm":
                inputs = inputs - jnp.mean(inputs, axis=axis, keepdims=True)
            inputs *= lax.rsqrt(jnp.mean(inputs**2, axis=axis, keepdims=True) + 1e-5)
        return jnp.mean(weights * jnp.tanh(inputs * leaves["gain"] + leaves["bias"]))

    args = (leaves, draw.normal(batch, width))
    return f"{kind}, {batch} x {width}, scale {scale:.1e}, offset {offset:.1e}", f, args


def attention(draw: Draw) -> Drawn:
    """Draws a layer of self-attention with a residual connection."""
    length, heads = draw.log_integer(3, 32), draw.integer(1, 4)
    width, size = draw.log_integer(2, 32), draw.log_integer(1, 16)
    causal, gain = draw.coin(), draw.log_uniform(0.3, 4)
    shape, scale = (width, heads, size), 1 / math.sqrt(width)
    leaves = {
        "query": draw.normal(*shape, scale=gain * scale),
        "key": draw.normal(*shape, scale=scale),
        "value": draw.normal(*shape, scale=scale),
        "out": draw.normal(heads, size, width, scale=1 / math.sqrt(heads * size)),
    }

    def f(leaves, inputs, targets):
        query, key, value = (
            jnp.einsum("lw,whs->lhs", inputs, leaves[name]) for name in ("query", "key", "value")
        )
        logits = jnp.einsum("lhs,mhs->hlm", query, key) / math.sqrt(size)
        if causal:
            mask = jnp.tril(jnp.ones((length, length), bool))
            logits = jnp.where(mask, logits, -jnp.inf)
        mixed = jnp.einsum("hlm,mhs->lhs", jax.nn.softmax(logits, axis=-1), value)
        return jnp.mean((inputs + jnp.einsum("lhs,hsw->lw", mixed, leaves["out"]) - targets) ** 2)

    details = (
        f"length {length}, {heads} heads of {size}, width {width}, gain {gain:.2g}"
        f"{', causal' if causal else ''}"
    )
    return details, f, (leaves, draw.normal(length, width), draw.normal(length, width))


def spectrum(draw: Draw) -> Drawn:
    """Draws a sum over the logarithms of a power spectrum."""
    size, rows = draw.log_integer(4, 256), draw.integer(1, 8)
    leaves = {"signal": draw.normal(rows, size), "window": 1 + draw.normal(size, scale=0.3)}

    def f(leaves, weights):
        waves = jnp.fft.rfft(leaves["signal"] * leaves["window"])
        return jnp.sum(weights * jnp.log1p(waves.real**2 + waves.imag**2))

    return f"{rows} x {size}", f, (leaves, draw.normal(rows, size // 2 + 1))
