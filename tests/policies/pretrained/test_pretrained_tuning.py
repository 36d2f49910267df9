"""What of a pretrained backbone is trained: nothing, adapters, or all of it; and what a saved policy has of it."""

import pytest
import torch
from torch import Tensor

from tandem_datasets.embodiment import Camera
from tandem_policies.files import load_network, save
from tandem_policies.network import PolicyNetwork, create
from tandem_policies.pretrained.language import language_tower
from tandem_policies.pretrained.settings import BackboneSettings
from tandem_policies.pretrained.vision import vision_tower

TWO = (Camera("top", 32, 32), Camera("wrist", 32, 32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_backbones_stand_still_and_adapters_learn(tiny, reader, body, batch_of, statistics_of, tmp_path, dtype):
    torch.manual_seed(0)
    seer = tiny("siglip_vision_model", attention_dropout=0.5)  # in training mode it would be random
    options = {"backbone_dtype": dtype, "lora_rank": 2, "lora_targets": "q_proj,v_proj"}
    network = create(
        "tinyvla", body(), dim=32, vision_drop=0.0, fusion_dropout=0.0, state_noise=0.0,
        vision_backbone=str(seer), language_backbone=str(reader), language_tuning="lora", **options,
    )  # fmt: skip
    network.set_statistics(statistics_of(network.embodiment))
    network.start(batch_of(network))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = train(network, batch_of(network, size=8))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == trained
    adapters = {name for name in trained if ".backbone." in name}
    assert len(adapters) == 2 * 2 * 2  # A and B, of two layers, in two blocks
    assert all(name.startswith("language.") and "lora_" in name for name in adapters)
    kinds = {value.dtype for name, value in network.named_parameters() if ".backbone." in name}
    assert kinds == {torch.float32, getattr(torch, dtype)}

    again = load_network(save(network.eval(), tmp_path / "policy"))
    batch = batch_of(network)
    assert torch.equal(again.predict(batch), network.predict(batch))
    assert again.attention(batch).shape == (3, 4, 4)
    assert {name for name, value in again.named_parameters() if value.requires_grad} == trained
    assert train(again, batch_of(network, size=8)) == trained


def train(network: PolicyNetwork, batch: dict[str, Tensor]) -> set[str]:
    """A few steps on one batch; the names of what is trained."""
    chosen = {name: value for name, value in network.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(chosen.values(), lr=3e-3)
    losses = []
    network.train()
    for _ in range(4):
        loss, _ = network.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    return set(chosen)


def test_full_tuning_trains_all_of_a_backbone_with_or_without_kept_activations(tiny, body, batch_of):
    network = create("tinyvla", body(), dim=32, vision_backbone=str(tiny("dinov2")), vision_tuning="full")
    batch = batch_of(network)
    plain = gradients(network, batch)
    assert sum(".backbone." in name for name in plain) == len(list(network.vision.tower.backbone.parameters()))
    network.gradient_checkpointing_enable()
    runs = []
    for block in (network.vision.blocks[0], network.language.blocks[0], network.vision.tower.backbone.encoder.layer[0]):
        block.register_forward_pre_hook(lambda *_, block=block: runs.append(block))
    for name, gradient in gradients(network, batch).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-6)
    assert sorted(map(runs.count, set(runs))) == [2, 2, 2]  # on the way forth, and again on the way back


def gradients(network: PolicyNetwork, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network.train().zero_grad()
    network.loss(batch)[0].backward()
    assert all(value.grad is not None for value in network.parameters())
    return {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}


def test_a_frozen_backbone_keeps_nothing_for_gradients(tiny, body, pictures, sees):
    tower = vision_tower(sees(tiny("vit", hidden_dropout_prob=0.5)), body(cameras=TWO), None).train()
    tokens = tower(pictures())
    assert not tokens.requires_grad
    assert torch.equal(tower(pictures()), tokens)
    assert {module.training for module in tower.backbone.modules()} == {False}


def test_fresh_adapters_change_nothing_yet(tiny, words, reads):
    tokens, mask = words()
    plain = language_tower(reads(tiny("llama")), None).eval()
    adapted = language_tower(reads(tiny("llama"), "lora", lora_targets=r"layers\.1\.(self_attn|mlp)"), None).eval()
    assert torch.equal(plain(tokens, mask), adapted(tokens, mask))
    layers = {name.rpartition(".lora_")[0] for name, value in adapted.named_parameters() if value.requires_grad}
    assert len(layers) == 7
    assert all(name.startswith("backbone.layers.1.") for name in layers)


def test_adapters_have_their_rank_scale_and_dropout(tiny, reads):
    lora = {"lora_targets": r"layers\.0\.self_attn\.q_proj", "lora_rank": 3, "lora_alpha": 12.0, "lora_dropout": 0.5}
    tower = language_tower(reads(tiny("llama"), "lora", **lora), None)
    layer = tower.backbone.layers[0].self_attn.q_proj
    inward, outward = layer.lora_A["default"].weight, torch.nn.init.ones_(layer.lora_B["default"].weight)
    assert inward.shape == (3, 32)
    tokens = torch.randn(4, 32)
    assert not torch.equal(layer.train()(tokens), layer(tokens))
    added = layer.eval()(tokens) - layer.base_layer(tokens)
    torch.testing.assert_close(added, 12 / 3 * tokens @ inward.T @ outward.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"language_tuning": "lora"}, "language_tuning is 'lora' .allowed: only with a language_backbone"),
        ({"vision_tuning": "loar"}, "vision_tuning is 'loar' .allowed: frozen, lora, full"),
        ({"vision_backbone": " "}, "vision_backbone is ' '"),
        ({"vision_backbone": "x", "vision_tuning": "full", "backbone_dtype": "bfloat16"}, "allowed: float32 with"),
        ({"backbone_dtype": "float8"}, "float32 or bfloat16"),
        ({"lora_targets": "q_proj("}, "a regular expression"),
        ({"lora_rank": 0}, "lora_rank is 0"),
    ],
)
def test_settings_that_contradict_are_refused(values, message, refused):
    refused(message, lambda: BackboneSettings(**values))


@pytest.mark.parametrize("targets", ["keys?_proj", "k_proj, nothing"])
def test_lora_patterns_match_or_say_what_there_is(tiny, targets, reads, refused):
    settings = reads(tiny("phi"), "lora", lora_targets=targets)
    if "," in targets:
        assert len(language_tower(settings, None).plan.adapted) == 2
    else:
        refused(r"match no linear layer .there are 12, such as layers\.0\.", lambda: language_tower(settings, None))
