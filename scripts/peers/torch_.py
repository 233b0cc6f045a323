"""PyTorch: a Sequential of Linear and Sigmoid, an optimizer of torch.optim, data in one tensor."""

# pyright: reportMissingImports=false

import os
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from peers import Program, Work

CHUNK = 2_000  # rows whose activations the caches hold
IS_ON_GPU = torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu"  # as JAX is
DEVICE = torch.device("cuda" if IS_ON_GPU else "cpu")

VARIANTS = {
    "torch": "Eager PyTorch in float32, on one tensor that torch.randperm shuffles.",
    "torch-compile": "PyTorch in float32 with the model compiled, on a GPU into CUDA graphs.",
    "torch-chunked": "Eager PyTorch in float32, a step's gradient summed over 2,000 rows a time.",
    "torch-bfloat16": "Eager PyTorch under autocast, products in bfloat16, params in float32.",
    "torch-bfloat16-compile": "PyTorch under autocast with the model compiled by torch.compile.",
    "torch-bfloat16-chunked": "The same, a step's gradient summed over 2,000 rows a time.",
}


def make(variant: str, work: Work) -> Program:
    """Returns the program."""
    is_half = "bfloat16" in variant
    dtype = torch.bfloat16 if is_half else torch.float32  # autocast would cast inputs each time
    inputs = scale(work.images).to(dtype)
    targets = F.one_hot(torch.tensor(work.labels, device=DEVICE).long(), work.sizes[-1]).float()
    model = network(work).to(DEVICE)
    forward = model
    if variant.endswith("compile"):
        torch.compiler.reset()  # other shapes than those of the work before
        forward = torch.compile(model, mode="reduce-overhead" if IS_ON_GPU else None)
    if is_half:
        forward = torch.autocast(DEVICE.type, torch.bfloat16)(forward)
    if work.optimizer == "adam":
        optimizer = torch.optim.Adam(
            model.parameters(), lr=work.learning_rate, betas=(0.9, work.beta2), fused=True
        )
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=work.learning_rate, fused=True)
    scheduler = None
    if work.epochs is not None:
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: work.rate(step) / work.learning_rate
        )
    chunk = CHUNK if variant.endswith("chunked") else work.batch_size
    generator = torch.Generator(DEVICE).manual_seed(work.seed)

    def add_gradient(inputs, targets, total):
        loss = F.mse_loss(forward(inputs).float(), targets, reduction="sum") / total
        loss.backward()
        return loss.detach()

    def step(inputs, targets):
        optimizer.zero_grad()
        if chunk < len(inputs):
            chunks = zip(inputs.split(chunk), targets.split(chunk), strict=True)
            loss = torch.stack([add_gradient(*each, len(inputs)) for each in chunks]).sum()
        else:
            loss = add_gradient(inputs, targets, len(inputs))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        return loss

    def epoch():
        if work.batch_size == len(inputs):
            return step(inputs, targets).item()
        order = torch.randperm(len(inputs), generator=generator, device=DEVICE)
        batches = order[: work.steps * work.batch_size].split(work.batch_size)
        losses = [step(inputs[batch], targets[batch]) for batch in batches]
        return torch.stack(losses).mean().item()

    @torch.inference_mode()
    def predict(images):
        return model(scale(images)).argmax(dim=1).cpu().numpy()

    return Program(epoch, predict)


def network(work: Work) -> nn.Sequential:
    """Returns the model with the parameters of the work."""
    layers = []
    for (fan_in, fan_out), (weight, bias) in zip(pairwise(work.sizes), work.params, strict=True):
        linear = nn.Linear(fan_in, fan_out, bias=bias is not None)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(weight.T))
            if bias is not None:
                linear.bias.copy_(torch.tensor(bias))
        layers += [linear, nn.Sigmoid()]
    return nn.Sequential(*layers)


def scale(images) -> torch.Tensor:
    """Returns what the network sees of uint8 images."""
    return torch.tensor(images, device=DEVICE).float() / 255
