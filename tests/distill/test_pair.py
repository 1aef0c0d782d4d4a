"""Teacher and student side by side."""

from __future__ import annotations

import copy

import pytest
import torch

import had
from had.attention.binarize import RELAXATIONS
from had.attention.module import hamming_layers, set_relaxation
from had.attention.recorded import recorded_layers
from had.config import StageWeights
from had.distill.losses import attention_loss, block_error, hidden_loss
from had.distill.pair import TeacherStudent, enclosing_blocks
from had.errors import HadError
from had.models.convert import record_attention
from tests.models.zoo import ZOO, build

EVERYTHING = StageWeights(attention=1.0, output=1.0, hidden=1.0, task=0.0)


def pair(name: str, relaxation: str = "sign", n: int = 4) -> TeacherStudent:
    teacher = build(name)
    student = had.binarize(copy.deepcopy(teacher), n, calibration=[ZOO[name].inputs()])
    set_relaxation(student, RELAXATIONS[relaxation]())
    return TeacherStudent(record_attention(teacher), student)


@pytest.mark.parametrize("name", ["bert", "modernbert", "llama", "t5", "vit", "timm_vit"])
def test_an_unchanged_student_has_nothing_to_learn(name: str) -> None:
    signals = pair(name, "identity", n=64)(ZOO[name].inputs(), EVERYTHING)
    assert attention_loss(signals).item() == pytest.approx(0, abs=1e-6)
    assert hidden_loss(signals).item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(signals.logits, signals.teacher_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "t5", "timm_vit"])
def test_a_binarized_student_has_something_to_learn_in_every_layer(name: str) -> None:
    signals = pair(name)(ZOO[name].inputs(), EVERYTHING)
    assert len(signals.divergences) == len(signals.hidden) == ZOO[name].layers
    assert all(divergence > 1e-5 for divergence in signals.divergences)
    assert hidden_loss(signals) > 0


def test_a_pass_that_failed_half_way_leaves_nothing_behind() -> None:
    both, inputs = pair("bert"), ZOO["bert"].inputs()
    expected = both(inputs, EVERYTHING)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = hamming_layers(both.student)[-1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        both(inputs, EVERYTHING)
    handle.remove()
    again = both(inputs, EVERYTHING)
    for found, wanted in zip(again.hidden, expected.hidden, strict=True):
        torch.testing.assert_close(found, wanted)


def test_attention_loss_equals_the_kl_of_recorded_maps() -> None:
    """The same number from maps of both models, which only this test may hold."""
    both = pair("bert")
    inputs = ZOO["bert"].inputs()
    seen = []
    for layer in hamming_layers(both.student):
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
        )
    records = []
    for layer in recorded_layers(both.teacher):
        layer.register_forward_hook(lambda module, *_: records.append(module.record))
    loss = attention_loss(both(inputs, EVERYTHING))
    real = inputs["attention_mask"].bool()
    rows = []
    for layer, (args, kwargs), record in zip(
        hamming_layers(both.student), seen, records, strict=True
    ):
        query, key, _ = args
        signs = [torch.where(x >= 0, 1.0, -1.0) for x in (query, key)]
        sigma = layer.query.sigma * layer.key.sigma * kwargs["scale"]
        student = sigma * signs[0] @ signs[1].transpose(-2, -1)
        teacher = kwargs["scale"] * record.query @ record.key.transpose(-2, -1)
        for b in range(3):
            length = int(real[b].sum())
            s, t = (x[b, :, :length, :length].log_softmax(-1) for x in (student, teacher))
            rows.append((layer, (t.exp() * (t - s)).sum(-1)))
    per_layer = [
        torch.cat([r.flatten() for owner, r in rows if owner is layer]).mean()
        for layer in hamming_layers(both.student)
    ]
    torch.testing.assert_close(loss, torch.stack(per_layer).mean(), atol=1e-6, rtol=1e-5)


def test_hidden_loss_ignores_padding() -> None:
    both, inputs = pair("bert"), ZOO["bert"].inputs()
    before = hidden_loss(both(inputs, EVERYTHING))
    inputs["input_ids"][1, 7:] = 33
    torch.testing.assert_close(hidden_loss(both(inputs, EVERYTHING)), before)


def test_hidden_loss_is_relative_to_each_token_of_the_teacher() -> None:
    """By hand: errors of a quarter and of a hundredth of a token a hundred times as large."""
    teacher = torch.tensor([[[2.0, 0.0], [0.0, 200.0], [5.0, 5.0]]])
    student = torch.tensor([[[2.0, 1.0], [20.0, 200.0], [9.0, 9.0]]])
    real = torch.tensor([[True, True, False]])
    assert block_error(student, teacher, real).item() == pytest.approx((0.25 + 0.01) / 2)


def test_gradients_reach_the_student_only() -> None:
    both = pair("bert")
    signals = both(ZOO["bert"].inputs(), EVERYTHING)
    (attention_loss(signals) + hidden_loss(signals)).backward()
    assert all(p.grad is None for p in both.teacher.parameters())
    query = both.student.bert.encoder.layer[0].attention.self.query.weight
    assert query.grad.abs().sum() > 0


def test_nothing_is_left_behind_on_the_layers() -> None:
    both = pair("bert")
    both(ZOO["bert"].inputs(), EVERYTHING)
    assert all(layer.target is None for layer in hamming_layers(both.student))
    assert all(layer.divergence is None for layer in hamming_layers(both.student))
    assert all(layer.record is None for layer in recorded_layers(both.teacher))


def test_losses_of_weight_zero_are_not_collected() -> None:
    signals = pair("bert")(ZOO["bert"].inputs(), StageWeights(0.0, 1.0, 0.0, 0.0))
    assert signals.divergences == ()
    assert signals.hidden == ()


def test_models_of_different_shape_are_refused() -> None:
    student = had.binarize(build("vit"), calibration=[ZOO["vit"].inputs()])
    with pytest.raises(HadError, match="differ in their attention layers"):
        TeacherStudent(record_attention(build("bert")), student)


def test_blocks_are_the_numbered_parts() -> None:
    layers = ["a.layer.3.attention.self", "blocks.0.attn", "blocks.0.cross"]
    assert enclosing_blocks(layers) == ["a.layer.3", "blocks.0"]
