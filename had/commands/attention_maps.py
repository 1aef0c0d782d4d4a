"""`had attention-maps`: what teacher and student of a run look at in one image."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from had.attention.maps import AttentionMap, recorded_maps, rollout, watched_maps
from had.build import build
from had.commands.attention_pictures import Panels, draw
from had.errors import HadError
from had.finished_run import Run
from had.models.convert import record_attention
from had.models.family import family_of
from had.tasks.images.decode import UnreadableImageError, decode
from had.tasks.images.pixels import ImageBatches, stored_side
from had.tasks.images.store import PIXELS
from had.tasks.images.task import ImageTask

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """`had attention-maps RUN --image FILE`; returns the exit status.

    Raises:
        HadError: no finished run of an image task, its teacher is gone, or the image is unreadable.
    """
    parser = argparse.ArgumentParser(prog="had attention-maps", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a finished run's directory")
    parser.add_argument("--image", type=Path, required=True, metavar="FILE")
    parser.add_argument("--layer", type=int, help="counted from 0; default: the last one")
    parser.add_argument("--head", type=int, help="counted from 0; default: all of them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/attention_maps")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("had").setLevel(logging.INFO)  # not what libraries say of loading
    run = VisionRun.open(arguments.run_dir)
    seen = run.look(arguments.image)
    layer = chosen("layer", arguments.layer, len(seen.teacher), default=len(seen.teacher) - 1)[0]
    count = seen.teacher[layer].weights.shape[1]
    heads = chosen("head", arguments.head, count)
    out = arguments.out or arguments.run_dir / "attention_maps"
    name = f"{arguments.image.stem}_layer{layer}" + (
        "" if arguments.head is None else f"_head{arguments.head}"
    )
    file = draw(seen.panels(layer, heads), out / f"{name}.png")
    log.info("%s", file)
    log_picture(run.cfg, arguments.run_dir, file)
    return 0


def chosen(what: str, wanted: int | None, count: int, default: int | None = None) -> list[int]:
    """The indices that an option means: the one given, else the default, else all.

    Raises:
        HadError: there is no such index.
    """
    if wanted is None:
        return list(range(count)) if default is None else [default]
    if not 0 <= wanted < count:
        raise HadError(f"--{what} {wanted}: there are {count}, counted from 0")
    return [wanted]


@dataclass(frozen=True)
class Seen:
    """One image and how both models attend to it.

    Attributes:
        image: float (3, side, side) in 0 .. 1, what the models see.
        teacher: a map for each layer.
        student: likewise.
        n: keys that a row of the student keeps.
    """

    image: Tensor
    teacher: list[AttentionMap]
    student: list[AttentionMap]
    n: int | float

    def panels(self, layer: int, heads: Sequence[int]) -> Panels:
        """What one figure shows: rollout over all layers, and single heads of one."""
        titles = ["rollout", *(f"layer {layer}, head {head}" for head in heads)]
        teacher, student = self.teacher[layer], self.student[layer]
        return Panels(
            self.image,
            titles,
            teacher=[self._rolled(self.teacher), *(self._row(teacher.weights, h) for h in heads)],
            student=[self._rolled(self.student), *(self._row(student.weights, h) for h in heads)],
            kept=[None, *(self._row(student.kept.float(), head) for head in heads)],
            n=self.n,
        )

    def _rolled(self, maps: list[AttentionMap]) -> Tensor:
        return self._patches(rollout([each.weights for each in maps])[0])

    def _row(self, maps: Tensor, head: int) -> Tensor:
        return self._patches(maps[0, head])

    def _patches(self, rows: Tensor) -> Tensor:
        """The patches (rows, columns) as the class token sees them; without one, all on average.

        Patches are the largest square that the tokens have room for; what comes before them are
        class, distillation and register tokens.
        """
        side = math.isqrt(len(rows))
        prefix = len(rows) - side**2
        row = rows[0] if prefix else rows.mean(0)
        return row[prefix:].reshape(side, side)


@dataclass(frozen=True)
class VisionRun:
    """A finished run of an image task, its models loaded."""

    cfg: DictConfig
    teacher: nn.Module
    student: nn.Module
    batches: ImageBatches

    @classmethod
    def open(cls, directory: Path) -> VisionRun:
        """Load both models of a run.

        Raises:
            HadError: it is no finished run of an image task, or its teacher is gone.
        """
        run = Run(directory)
        task = build(run.cfg.task)
        if not isinstance(task, ImageTask):
            raise HadError(f"{directory}: its task, {task.name}, has no image files to look at")
        student = run.student()
        classes = family_of(student).classes(student)
        batches = task.batches(run.preprocessor(), classes)
        return cls(run.cfg, record_attention(run.teacher_with(classes)), student, batches)

    @torch.no_grad()
    def look(self, file: Path) -> Seen:
        """Show an image to both models.

        Raises:
            HadError: it cannot be read.
        """
        side = stored_side(self.batches.side, self.batches.crop)
        try:
            pixels = decode(file, side, self.batches.interpolation)[None]
        except UnreadableImageError as error:
            raise HadError(f"--image {file}: {error}") from error
        batch = {"inputs": {PIXELS: pixels}, "labels": torch.zeros(1, dtype=torch.long)}
        plain = replace(self.batches, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
        family, inputs = family_of(self.student), self.batches(batch)["inputs"]
        family.forward(self.teacher, inputs)
        with watched_maps(self.student) as student:
            family.forward(self.student, inputs)
        return Seen(
            plain(batch)["inputs"][PIXELS][0],
            recorded_maps(self.teacher),
            student,
            self.cfg.sparsity.n,
        )


def log_picture(cfg: DictConfig, directory: Path, file: Path) -> None:
    """Hand a picture to the run's own loggers that take pictures."""
    for node in (cfg.logger or {}).values():
        if str(node.get("_target_")).endswith("WandbLogger"):
            found = sorted((directory / "wandb").glob("*run-*-*"))
            same = {"id": found[-1].name.rpartition("-")[2], "resume": "allow"} if found else {}
            logger = build({**node, "save_dir": str(directory), **same})
            logger.log_image(key="attention_maps", images=[str(file)])
            logger.experiment.finish()
