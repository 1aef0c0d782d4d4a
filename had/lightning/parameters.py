"""What the training loop does with the parameters of a model as such."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def narrow_linear_layers(model: nn.Module) -> None:
    """Keep the weights of linear layers in bfloat16, as autocast would round them in every step.

    The outputs under autocast stay the same, bit for bit; two kernels a layer are saved. Weights
    that are an embedding's as well stay as they are: autocast does not round embeddings.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in embeddings:
            module.to(torch.bfloat16)


def is_matrix(parameter: Tensor) -> bool:
    """Weights of linear layers and convolutions, as opposed to biases, norms and head scales."""
    return parameter.ndim >= 2 and parameter.shape[1:].numel() > 1
