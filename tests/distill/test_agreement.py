"""Agreement of a student's attention with its teacher's, by layer."""

from __future__ import annotations

import copy

import pytest

import had
from had.attention.binarize import RELAXATIONS
from had.attention.module import set_relaxation
from had.config import StageWeights
from had.distill.agreement import attention_agreement
from had.distill.losses import attention_loss
from had.distill.pair import TeacherStudent
from had.models.convert import record_attention
from tests.models.zoo import ZOO, build


@pytest.fixture(scope="module")
def pair() -> TeacherStudent:
    teacher = build("bert")
    student = had.binarize(copy.deepcopy(teacher), 4, calibration=[ZOO["bert"].inputs()])
    return TeacherStudent(record_attention(teacher).eval(), student.eval())


def test_the_mean_over_layers_is_the_attention_loss(pair: TeacherStudent) -> None:
    batch = ZOO["bert"].inputs()
    by_layer = attention_agreement(pair, [batch, batch])
    assert list(by_layer) == [f"attention/{i}/kl_nats" for i in range(ZOO["bert"].layers)]
    assert len(set(by_layer.values())) == len(by_layer)
    loss = attention_loss(pair(batch, StageWeights(attention=1.0))).item()
    assert sum(by_layer.values()) / len(by_layer) == pytest.approx(loss, rel=1e-5)


def test_an_unchanged_student_agrees_everywhere(pair: TeacherStudent) -> None:
    set_relaxation(pair.student, RELAXATIONS["identity"]())
    values = attention_agreement(pair, [ZOO["bert"].inputs()]).values()
    set_relaxation(pair.student, RELAXATIONS["sign"]())
    assert max(values) == pytest.approx(0, abs=1e-6)


def test_without_batches_nothing_is_said(pair: TeacherStudent) -> None:
    assert attention_agreement(pair, []) == {}
