"""Every rule has its sentence, and all sentences come at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import open_dict

from had.config.validate import check, validate
from had.errors import HadError


def test_the_defaults_are_valid(compose) -> None:
    check(compose())


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("sparsity.n=0", "sparsity.n=0: must be an integer of 1 or more"),
        ("sparsity.n=0.0", "sparsity.n=0.0: must be"),
        ("sparsity.n=8.0", "sparsity.n=8.0: must be"),
        ("sparsity.n=-3", "sparsity.n=-3: must be"),
        ("sparsity.minimum=4", "sparsity.minimum=4 goes with a fraction, and sparsity.n=8 is a"),
        ("sparsity.minimum=0", "sparsity.minimum=0: must be 1 or more"),
        ("binarization.recent=9", "sparsity.n=8: the binarization.recent=9 last keys are among"),
        ("binarization.recent=-1", "binarization.recent=-1: must be 0 or more"),
        ("schedule.attention_stride=0", "schedule.attention_stride=0: must be 1 or more"),
        (
            "schedule.query_key_learning_rate=0",
            "learning_rate=0.0: must be greater than 0, or null",
        ),
        ("schedule.stages.0.share=0.5", "the shares 0.5 + 0.25 + 0.35 + 0.15 sum to 1.25"),
        ("schedule.stages.0.share=-0.25", "schedule.stages.0.share=-0.25: must not be negative"),
        ("schedule.stages.0.c=null", "schedule.stages.0.c is missing: a soft stage"),
        ("schedule.stages.1.c=[1,0]", "schedule.stages.1.c=[1.0, 0.0]: must be two positive"),
        ("schedule.stages.1.c=[1]", "must be two positive numbers"),
        ("finetune.betas=[0.9,1.0]", "finetune.betas=[0.9, 1.0]: must be two numbers in [0, 1)"),
        ("schedule.stages.2.relaxation=sing", "sing: must be one of identity, soft, sharp, sign"),
        ("schedule.stages.2.weights.output=-1", "schedule.stages.2.weights.output=-1.0: must not"),
        ("schedule.stages.2.learning_rate_factor=0", "learning_rate_factor=0.0: must be greater"),
        ("schedule.stages.0.mixing=2", "schedule.stages.0.mixing=2.0: must be a share between 0"),
        ("finetune.stages.0.mixing=0.5", "mixed examples may have no labels"),
        ("schedule.epochs_factor=0", "schedule.epochs_factor=0.0: must be greater than 0"),
        ("binarization.relaxation=soft", "relaxation=soft: must be one of sign, identity"),
        ("binarization.weights=bits", "binarization.weights=bits: must be one of softmax, binary"),
        ("schedule.decay=exponential", "schedule.decay=exponential: must be one of linear"),
        ("schedule.warmup=2", "schedule.warmup=2.0: must be a share between 0 and 1"),
        ("schedule.epochs=0", "schedule.epochs=0.0: must be greater than 0"),
        ("task.epochs=-1", "finetune.epochs=-1.0: must be greater than 0"),
        ("task.batch_size=0", "task.batch_size=0: must be a number greater than 0"),
        ("finetune.stages.0.weights.hidden=1", "finetune.stages.0.weights.hidden=1.0: needs a"),
        ("finetune.stages.0.weights.attention=1", "needs a teacher, and this trains the teacher"),
        ("finetune.stages.0.relaxation=sign", "a teacher is full-precision"),
        ("binarization.scale=frozen", "=frozen: must be one of frozen_sigma, head_scale"),
        ("binarization.ste_clip=0", "binarization.ste_clip=0.0: must be greater than 0, or null"),
        ("binarization.calibration_batches=0", "calibration_batches=0: must be 1 or more"),
        ("model.arguments.num_heads=5", "model.arguments.embed_dim=64 is no multiple of"),
        ("model=bert", "task.modality=image does not fit model.modality=text"),
        ("teacher=./nowhere", "teacher=./nowhere: there is no such directory"),
        ("teacher=a/b/c", "teacher=a/b/c: there is no such directory"),
        ("resume=nowhere", "resume=nowhere: there is no such file or directory"),
        ("trainer.accelerator=gpus", "must be one of auto, cpu, gpu, cuda, mps; did you mean gpu?"),
        ("trainer.precision=fp16", "trainer.precision=fp16: must be one of 32-true"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0: must be 1"),
        ("callbacks.checkpoints.every_n_steps=0", "every_n_steps=0: must be 1 or more"),
        ("callbacks.checkpoints.keep=0", "callbacks.checkpoints.keep=0: must be 1 or more"),
        ("seed=-1", "seed=-1: must be 0 or more"),
        ("model=timm", "model.name has no value and needs one: model.name=<value>"),
        ("task=files", "task.path has no value and needs one: task.path=<value>"),
        ("~task.topn", "sparsity.n: Interpolation key 'task.topn' not found"),
        ("+task.topm=3", "task.topm: had.tasks.digits.DigitsTask has no such argument; did you"),
        ("+trainer.max_epoch=3", "Trainer has no such argument; did you mean max_epochs?"),
        ("trainer.accumulate_grad_batches=x", "'x': pytorch_lightning.Trainer takes int"),
        ("model._target_=had.models.timm.No", "model._target_=had.models.timm.No: cannot be"),
        ("callbacks.progress._target_=no.Where", "cannot be imported (No module named 'no'"),
        ("+sparsity.m=3", "Key 'm' not in 'SparsityConfig'"),
        ("hardware.accelerators=[camfrmer]", "hardware.accelerators=camfrmer: "),
        ("hardware.baseline=none", "hardware.baseline=none: "),
        ("+schedul=3", "schedul: no such key; did you mean schedule?"),
    ],
)
def test_a_violation_names_key_value_and_way_out(compose, override: str, sentence: str) -> None:
    assert any(sentence in line for line in validate(compose(override)))


@pytest.mark.parametrize(
    "override",
    [
        "sparsity.n=1.0",
        "sparsity=none",
        "sparsity=topn_scaled",
        "schedule=none",
        "seed=0",
        "teacher=google-bert/bert-base-uncased",
        "teacher=bert",
        "resume=auto",
        "trainer=ddp",
        "trainer.precision=bf16",
        "trainer.precision=16",
        "callbacks=none",
        "~callbacks.progress",
        "+trainer.limit_train_batches=2",
    ],
)
def test_no_false_alarm(compose, override: str) -> None:
    assert validate(compose(override)) == []


def test_existing_places_are_fine(compose, tmp_path) -> None:
    assert validate(compose(f"teacher={tmp_path}", f"resume={tmp_path}")) == []


def test_everything_is_reported_at_once_and_numbered(compose) -> None:
    cfg = compose("sparsity.n=0", "trainer.precision=half", "task.batch_size=0", "model=timm")
    with pytest.raises(HadError) as caught:
        check(cfg)
    message = str(caught.value)
    assert message.startswith("4 problems in the configuration; nothing was started:\n  1. ")
    for key in ("sparsity.n=0", "trainer.precision=half", "task.batch_size=0", "model.name"):
        assert message.count(key + ":") + message.count(key + " has no value") == 1


def in_a_sweep(cfg):
    with open_dict(cfg):
        cfg.hydra.mode = RunMode.MULTIRUN
    return cfg


@pytest.mark.parametrize(
    "override",
    [
        "trainer.devices=2",
        "trainer.devices=[0,1]",
        "trainer.devices=-1",
        "trainer=ddp",
        "trainer=fsdp",
    ],
)
def test_a_sweep_in_one_process_uses_one_device(compose, override: str) -> None:
    assert validate(compose(override)) == []
    (line,) = validate(in_a_sweep(compose(override)))
    assert "hydra/launcher" in line


def test_another_launcher_may_use_several_devices(compose) -> None:
    cfg = in_a_sweep(compose("trainer.devices=2", "hydra.launcher._target_=some.Launcher"))
    assert validate(cfg) == []


def test_a_sweep_cannot_be_resumed(compose) -> None:
    (line,) = validate(in_a_sweep(compose("resume=auto")))
    assert line.startswith("resume=auto: a sweep (-m) cannot be resumed")


def test_sharded_projections_have_no_pace_of_their_own(compose) -> None:
    assert validate(compose("trainer=ddp", "schedule.query_key_learning_rate=0.01")) == []
    (line,) = validate(compose("trainer=fsdp", "schedule.query_key_learning_rate=0.01"))
    assert line.startswith("schedule.query_key_learning_rate=0.01: under FSDP")


def test_timms_way_to_name_a_directory(compose, tmp_path: Path) -> None:
    assert validate(compose("model=timm", f"model.name=local-dir:{tmp_path}")) == []
    (line,) = validate(compose("model=timm", "model.name=local-dir:nowhere"))
    assert line.startswith("model.name=local-dir:nowhere: no such directory")
