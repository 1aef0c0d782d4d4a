"""What the YAML files and config.json files say of a model is what the libraries build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import transformers as tf
import yaml

from had.errors import HadError
from had.hardware import ModelGeometry
from had.hardware.geometry import amend, read_config, read_geometry

CONF = Path(__file__).parents[2] / "conf" / "model"


def described(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def stated(name: str) -> ModelGeometry:
    return read_geometry(described(name)["geometry"])


def written(folder: Path, config: Mapping[str, Any]) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file


def test_every_model_states_its_geometry_or_that_it_has_none() -> None:
    files = sorted(path.stem for path in CONF.glob("*.yaml"))
    general = [name for name in files if described(name)["geometry"] is None]
    assert general == [name for name in files if described(name)["name"] == "???"]
    assert all(stated(name) for name in files if name not in general)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bert", tf.BertConfig()),
        ("roberta", tf.RobertaConfig()),
        ("modernbert", tf.ModernBertConfig()),
        # Devlin et al., NAACL 2019, section 3: BERT-LARGE has L = 24, H = 1024, A = 16.
        (
            "bert_large",
            tf.BertConfig(num_hidden_layers=24, hidden_size=1024, num_attention_heads=16),
        ),
    ],
)
def test_text_models_are_what_transformers_configures(
    tmp_path: Path, name: str, config: tf.PretrainedConfig
) -> None:
    config.save_pretrained(tmp_path)
    assert stated(name) == read_config(tmp_path / "config.json", {})
    assert stated(name).layers == config.num_hidden_layers
    assert stated(name).heads * stated(name).head_dim == config.hidden_size


def test_minilm_is_what_its_weights_come_with(shared_data: Path) -> None:
    file = shared_data / "models" / "minilm_l6_h384" / "config.json"
    assert stated("minilm") == read_config(file, {})


def test_modernbert_windows_are_those_of_its_layers() -> None:
    config = tf.ModernBertConfig()
    assert stated("modernbert").local_layers == config.layer_types.count("sliding_attention")
    assert stated("modernbert").window == 2 * config.sliding_window + 1


def test_the_older_form_of_modernbert_says_the_same(tmp_path: Path) -> None:
    old = {"hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12}
    old |= {"global_attn_every_n_layers": 3, "local_attention": 128}
    assert read_config(written(tmp_path, old), {}) == stated("modernbert")


def test_vit_digits_is_what_timm_builds() -> None:
    model = described("vit_digits")
    built = timm.create_model(model["name"], **model["arguments"])
    attention = built.blocks[0].attn
    assert stated("vit_digits") == ModelGeometry(
        layers=len(built.blocks),
        heads=attention.num_heads,
        head_dim=attention.head_dim,
        tokens=built.patch_embed.num_patches + built.num_prefix_tokens,
    )
    assert amend(stated("vit_digits"), model["arguments"]) == stated("vit_digits")


@pytest.mark.parametrize(
    "architecture",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch32_224",
        "deit_base_distilled_patch16_224",
        "deit3_large_patch16_384",
    ],
)
def test_timm_architectures_are_known_by_name(tmp_path: Path, architecture: str) -> None:
    import torch

    with torch.device("meta"):
        built = timm.create_model(architecture)
    config = {
        "architecture": architecture,
        "num_features": built.num_features,
        "pretrained_cfg": {"input_size": list(built.pretrained_cfg["input_size"])},
    }
    attention = built.blocks[0].attn
    assert read_config(written(tmp_path, config), {}) == ModelGeometry(
        layers=len(built.blocks),
        heads=attention.num_heads,
        head_dim=attention.head_dim,
        tokens=built.patch_embed.num_patches + built.num_prefix_tokens,
    )


def test_a_size_given_by_hand_replaces_that_of_a_timm_directory(tmp_path: Path) -> None:
    about = {"input_size": [3, 224, 224]}
    config = {"architecture": "vit_tiny_patch16_224", "num_features": 192, "pretrained_cfg": about}
    file = written(tmp_path, config)
    assert read_config(file, {}).tokens == 14 * 14 + 1
    assert read_config(file, {"img_size": 64, "patch_size": 16}).tokens == 4 * 4 + 1


def test_a_saved_timm_student_states_its_arguments(tmp_path: Path) -> None:
    arguments = {"img_size": [8, 8], "patch_size": [2, 2], "embed_dim": 64, "depth": 4}
    config = {"architecture": "vit_tiny_patch16_224", "model_args": arguments | {"num_heads": 4}}
    assert read_config(written(tmp_path, config), {}) == stated("vit_digits")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (tf.GPT2Config(), ModelGeometry(12, 12, 64)),
        (tf.DistilBertConfig(), ModelGeometry(6, 12, 64)),
        (
            tf.LlamaConfig(num_key_value_heads=8, head_dim=96),
            ModelGeometry(32, 32, 96, kv_heads=8),
        ),
        (tf.ViTConfig(), ModelGeometry(12, 12, 64, tokens=197)),
        (tf.DeiTConfig(), ModelGeometry(12, 12, 64, tokens=198)),
        (tf.T5Config(), ModelGeometry(6, 8, 64, decoder_layers=6)),
        (tf.T5Config(num_decoder_layers=2), ModelGeometry(6, 8, 64, decoder_layers=2)),
        (
            tf.BartConfig(encoder_layers=3, decoder_layers=2),
            ModelGeometry(3, 16, 64, decoder_layers=2),
        ),
    ],
)
def test_other_families_are_read(
    tmp_path: Path, config: tf.PretrainedConfig, expected: ModelGeometry
) -> None:
    config.save_pretrained(tmp_path)
    found = read_config(tmp_path / "config.json", {})
    assert (found.kv_heads or found.heads) == (expected.kv_heads or expected.heads)
    assert (found.layers, found.heads, found.head_dim, found.tokens) == (
        *(expected.layers, expected.heads, expected.head_dim, expected.tokens),
    )
    assert found.decoder_layers == expected.decoder_layers


def test_a_decoder_beside_an_encoder() -> None:
    """100 tokens read, 5 written: row i of them sees i of its own; and all 100 of the encoder."""
    model = ModelGeometry(2, 4, 8, decoder_layers=1)
    layers = model.workload(100, 10, target=5).layers
    assert [(each.query_length, each.key_length, each.n) for each in layers] == [
        *([(100, 100, 10)] * 2),
        *((5, 3, 10), (5, 100, 10)),
    ]
    step = model.workload(100, 10, target=5, query_length=1).layers
    assert [(each.query_length, each.key_length) for each in step] == [(1, 5), (1, 100)]
    same = model.workload(100, 10).layers
    assert [each.query_length for each in same] == [100] * 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "must be a JSON object"),
        ('{"hidden_size": 8}', "layers, heads, head_dim missing"),
        ('{"depth": "4"}', "depth='4' must be an integer of 1 or more"),
        ('{"is_encoder_decoder": true, "d_kv": 8}', "layers, heads missing"),
        (
            '{"n_layer": 2, "n_head": 3, "n_embd": 6, "num_key_value_heads": 2}',
            "heads=3 is no multiple of kv_heads=2",
        ),
        (
            '{"n_layer": 1, "n_head": 3, "n_embd": 6, "layer_types": ["sliding_attention"]}',
            "1 layers have a sliding window that looks back only",
        ),
        (
            '{"depth": 1, "num_heads": 1, "embed_dim": 6, "img_size": "big", "patch_size": 2}',
            "'big' is no size of an image",
        ),
    ],
)
def test_a_file_that_does_not_tell_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(HadError, match=r"config\.json: .*" + reason):
        read_config(file, {})


def test_a_geometry_is_refused_with_all_its_faults() -> None:
    with pytest.raises(HadError) as refusal:
        read_geometry({"layers": 2, "heads": True, "width": 3, "local_layers": 3})
    assert str(refusal.value).split("; ") == [
        "heads=True must be an integer of 1 or more",
        "no such key width, known: layers, heads, head_dim, kv_heads, value_dim, tokens, "
        "local_layers, window, decoder_layers",
        "head_dim missing",
        "local_layers=3 are more than layers=2",
        "local_layers and window need each other",
    ]


@pytest.mark.parametrize(("length", "window"), [(1, 5), (3, 5), (5, 5), (12, 5), (200, 129)])
def test_windows_are_counted_key_by_key(length: int, window: int) -> None:
    side = window // 2
    seen = sum(abs(i - j) <= side for i in range(length) for j in range(length)) / length
    geometry = ModelGeometry(3, 4, 8, local_layers=2, window=window)
    lengths = [layer.key_length for layer in geometry.workload(length, 2).layers]
    assert lengths == pytest.approx([length, seen, seen])
    step = geometry.workload(length, 2, query_length=1).layers
    assert [layer.key_length for layer in step] == [length, *[min(length, window)] * 2]
