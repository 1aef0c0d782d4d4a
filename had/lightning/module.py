"""The one LightningModule: any schedule, any task, any model, with or without a teacher."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor, nn

from had.attention.module import finish_relaxation, set_relaxation
from had.attention.projections import query_key_weights
from had.config import StageWeights
from had.distill.losses import Signals, attention_loss, hidden_loss
from had.distill.pair import Alone, TeacherStudent
from had.distill.schedule import Schedule
from had.errors import HadError
from had.lightning.data import draw_seed
from had.lightning.finite import FiniteSteps
from had.lightning.graphs import StepGraphs
from had.lightning.pace import Pace
from had.lightning.parameters import is_matrix, narrow_linear_layers
from had.lightning.scores import Scores
from had.lightning.shares import of_whole_batch
from had.tasks.base import FINISHED, Batch, OnDevice, Task
from had.tasks.mixing import MixingPlan

log = logging.getLogger(__name__)


class DistillationModule(pl.LightningModule):
    """Trains a student through the stages of a schedule and evaluates it beside its teacher.

    The state dict is the student's alone: the teacher is held outside the module tree.

    Args:
        models: `TeacherStudent`, or `Alone` for plain fine-tuning.
        task: gives losses and metrics.
        schedule: stages and learning rates by step.
        evaluation_sets: names of the evaluation sets, in the order of their data loaders.
        cuda_graphs: replay captured steps where the device and the trainer allow it.
        on_device: finishes batches, before any captured step.
    """

    student: nn.Module

    def __init__(
        self,
        models: TeacherStudent | Alone,
        task: Task,
        schedule: Schedule,
        evaluation_sets: list[str],
        *,
        cuda_graphs: bool = True,
        on_device: OnDevice = FINISHED,
    ) -> None:
        super().__init__()
        self.student = models.student
        self.models, self.task, self.schedule = models, task, schedule
        self.evaluation_sets = evaluation_sets
        self.cuda_graphs = cuda_graphs
        self.on_device = on_device
        # By name, and now: of a sharded parameter each process sees a piece without a shape.
        self._decayed = {name for name, p in self.student.named_parameters() if is_matrix(p)}
        self._graphs: StepGraphs | None = None
        self._stage = -1
        self.shown_loss: float | None = None
        self._last_loss: Tensor | None = None
        # Both phases of a run share its loggers, so their curves need names of their own.
        alone = models.teacher is None
        self._role, self._training = ("teacher", "finetune") if alone else ("student", "train")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["borders"] = self.schedule.borders

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raise HadError if the checkpoint was written under other stages or another length."""
        if checkpoint["borders"] != self.schedule.borders:
            raise HadError(
                f"resume: the checkpoint is of another schedule (stages end at steps "
                f"{checkpoint['borders']}, now at {self.schedule.borders}); "
                "resume with the settings it was made with, or resume=null"
            )

    # ---- training -------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._place_teacher()
        if self.global_rank:  # dropout is not the same on all processes
            torch.manual_seed(hash((self.schedule.seed, self.global_rank)) % 2**63)
        self._stage = -1
        self._steps = FiniteSteps(self._role, self.device)
        self._graphs = StepGraphs(self._step, self.student.parameters()) if self._fits() else None

    def _fits(self) -> bool:
        """Whether steps can run as CUDA graphs: they own the gradients, which others must not."""
        alone = self.trainer.world_size == 1 and self.trainer.accumulate_grad_batches == 1
        on_gpu = self.device.type == "cuda" and self.trainer.scaler is None
        whole = not isinstance(self.trainer.strategy, FSDPStrategy)
        return self.cuda_graphs and alone and on_gpu and whole

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Bring the relaxation to where the schedule wants it at this step."""
        step = self.global_step
        if self.schedule.stage_index(step) != self._stage:
            self._enter_stage(step)
        sharpness = self.schedule.sharpness(step)
        if isinstance(self._relaxation.c, Tensor):
            self._relaxation.c.fill_(sharpness)
        else:
            self._relaxation.c = sharpness

    def _enter_stage(self, step: int) -> None:
        self._stage = self.schedule.stage_index(step)
        stage = self.schedule.stage(step)
        self._relaxation = self.schedule.relaxation(step)
        if self._graphs is not None:
            self._relaxation.c = torch.tensor(self._relaxation.c, device=self.device)
        set_relaxation(self.student, self._relaxation)
        self.student.train(self.schedule.config.dropout)
        log.info("step %d: stage %r (%s)", step, stage.name, stage.relaxation)
        # Not by self.log, which only sees the steps that are logged: curves need the exact border.
        for logger in self.trainer.loggers:
            logger.log_metrics({f"{self._training}/stage": self._stage}, step=step)

    def _mixed(self, batch: Batch) -> Batch:
        """The batch with as many examples mixed as the stage asks for."""
        share = self.schedule.config.stages[self._stage].mixing
        if not share:
            return batch
        # Every process of a run has examples of its own, and so mixes them in its own way.
        seed = hash((self.schedule.seed, self.global_rank))
        plan = MixingPlan.draw(len(batch["labels"]), share, seed, self.global_step)
        return self.task.mix(batch, plan.to(self.device))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self.on_device(batch, draw_seed(self.schedule.seed, batch_idx, self.global_rank))
        batch = self._mixed(batch)
        parts = self._step(batch) if self._graphs is None else self._graphs(batch, self._stage)
        if self._logs_now():
            shown = {
                f"{self._training}/{name}": part.detach().clone() for name, part in parts.items()
            }
            self.log_dict(
                {**shown, f"{self._training}/c": float(self._relaxation.c)}, sync_dist=True
            )
            self.shown_loss = self._steps.number(parts["loss"], self.global_step)
        self._last_loss = parts["loss"].detach()
        return parts["loss"]

    def on_train_end(self) -> None:
        if self._last_loss is not None:  # as where resumed at the end
            self._steps.number(self._last_loss, self.global_step)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of a batch in the current stage, and its unweighted parts."""
        weights = self.schedule.config.stages[self._stage].weights
        signals, labels = self.models(batch["inputs"], weights), batch.get("labels")
        parts = self._losses(signals, labels, weights)
        if self.trainer.world_size > 1:
            parts = of_whole_batch(parts, self._counts(signals, labels))
        weighted = [getattr(weights, name) * part for name, part in parts.items()]
        return {"loss": torch.stack(weighted).sum(), **parts}

    def backward(self, loss: Tensor) -> None:
        if self._graphs is None:
            loss.backward()

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._graphs is None:
            optimizer.zero_grad()

    def _losses(
        self, signals: Signals, labels: Tensor | None, weights: StageWeights
    ) -> dict[str, Tensor]:
        """The parts of the loss whose weight is not zero; without labels there is no task loss."""
        compute = {
            "attention": lambda: attention_loss(signals),
            "hidden": lambda: hidden_loss(signals),
            "output": lambda: self.task.output_loss(signals.logits, signals.teacher_logits, labels),
        }
        if labels is not None:
            compute["task"] = lambda: self.task.loss(signals.logits, labels)
        return {name: part() for name, part in compute.items() if getattr(weights, name) > 0}

    def _counts(self, signals: Signals, labels: Tensor | None) -> dict[str, Tensor | int]:
        """What each part is a mean over, up to a factor that is the same on all processes."""
        examples = len(signals.logits)
        tokens = examples if signals.real is None else signals.real.sum()
        return {
            "attention": tokens,
            "hidden": tokens,
            "output": examples if labels is None else self.task.output_count(labels),
            "task": 0 if labels is None else self.task.loss_count(labels),
        }

    def _logs_now(self) -> bool:
        # self.log costs more than some layers' kernels, so quiet steps do not call it at all.
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW; biases, norms and scales are not decayed. The schedule sets the rate by step."""
        config = self.schedule.config
        rate = config.learning_rate * config.learning_rate_factor
        optimizer = torch.optim.AdamW(
            self._parameter_groups(),
            lr=rate,
            betas=tuple(config.betas),
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda" and self.trainer.scaler is None,
        )
        if config.query_key_learning_rate is not None:
            assert not isinstance(self.trainer.strategy, FSDPStrategy), "refused with the settings"
            factor = config.query_key_learning_rate / rate
            Pace(query_key_weights(self.student), factor).watch(optimizer)
        path = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": path, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        trained = [(n, p) for n, p in self.student.named_parameters() if p.requires_grad]
        decayed = [
            name.replace("_fsdp_wrapped_module.", "") in self._decayed for name, _ in trained
        ]
        return [
            {"params": [p for (_, p), yes in zip(trained, decayed, strict=True) if yes]},
            {
                "params": [p for (_, p), yes in zip(trained, decayed, strict=True) if not yes],
                "weight_decay": 0.0,
            },
        ]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients' norm; Lightning itself refuses to beside a fused optimizer."""
        if not gradient_clip_val:
            return
        if isinstance(self.trainer.strategy, FSDPStrategy):  # the norm of all pieces together
            norm = self.trainer.model.clip_grad_norm_(gradient_clip_val)
        else:
            norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), gradient_clip_val)
        if self.trainer.scaler is None:  # which leaves such steps out itself
            self._steps.look(optimizer, norm)

    # ---- evaluation -----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._scores = self._fresh_scores([self._role])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._count(self._role, self.student, self.on_device(batch), dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value for name, value in self._scores.results().items()})

    def on_test_start(self) -> None:
        self._place_teacher()
        finish_relaxation(self.student)

    def on_test_epoch_start(self) -> None:
        alone = self.models.teacher is None
        self._scores = self._fresh_scores(["student"] if alone else ["teacher", "student"])

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Teacher and student see the same batch, in the same precision."""
        batch = self.on_device(batch)
        student = self._count("student", self.student, batch, dataloader_idx)
        if self.models.teacher is not None:
            teacher = self._count("teacher", self.models.teacher, batch, dataloader_idx)
            self._scores.compare(dataloader_idx, student, teacher)

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._scores.results())

    def _count(self, role: str, model: nn.Module, batch: Batch, dataloader_idx: int) -> Tensor:
        """Count one batch of one model; returns its logits."""
        logits = self.models.family.logits(model, batch["inputs"])
        self._scores.count(role, dataloader_idx, logits, batch["labels"])
        return logits

    def _fresh_scores(self, roles: list[str]) -> Scores:
        return Scores(self.task, self.evaluation_sets, roles, self.device)

    def _place_teacher(self) -> None:
        if self.models.teacher is not None:
            self.models.teacher.to(self.device).eval().requires_grad_(False)
            if self.trainer.precision == "bf16-mixed":
                narrow_linear_layers(self.models.teacher)
