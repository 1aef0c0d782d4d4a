"""FSDP: each process keeps a part of the student's weights, gradients and optimizer state."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FullStateDictConfig,
    FullyShardedDataParallel,
    MixedPrecision,
    StateDictType,
)
from torch.distributed.fsdp.wrap import ModuleWrapPolicy


class Sharded(FSDPStrategy):
    """Lightning's FSDP for students: a unit for each block, and the numbers that DDP gives.

    Weights are gathered in float32 and computed with under autocast, as elsewhere: casting the
    units themselves would round the scales of queries and keys. Checkpoints hold everything whole.

    Args:
        sharding_strategy: FULL_SHARD, SHARD_GRAD_OP or HYBRID_SHARD.
        further: of `torch.distributed.fsdp.FullyShardedDataParallel`.
    """

    def __init__(self, sharding_strategy: str = "FULL_SHARD", **further: Any) -> None:
        super().__init__(sharding_strategy=sharding_strategy, state_dict_type="full", **further)

    @property
    def mixed_precision_config(self) -> MixedPrecision | None:
        return self.mixed_precision

    def _setup_model(self, model: nn.Module) -> nn.Module:
        # Lightning names the device by its number, which CPUs do not have.
        return FullyShardedDataParallel(
            model,
            sharding_strategy=self.sharding_strategy,
            auto_wrap_policy=ModuleWrapPolicy(repeated_blocks(model)),
            device_id=self.root_device,
            **self.kwargs,
        )


def repeated_blocks(model: nn.Module) -> set[type[nn.Module]]:
    """The classes of which a model has a list: its layers."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    kinds = [{type(child) for child in each} for each in lists if len(each) > 1]
    return {kind for each in kinds if len(each) == 1 for kind in each}


class WholeWeights(pl.Callback):
    """Gathers the weights of a sharded module at the end of training, on every process.

    Attributes:
        state: its state dict, on the CPU.
    """

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        whole = FullStateDictConfig(offload_to_cpu=True, rank0_only=False)
        with FullyShardedDataParallel.state_dict_type(
            trainer.model, StateDictType.FULL_STATE_DICT, whole
        ):
            self.state = trainer.model.state_dict()
