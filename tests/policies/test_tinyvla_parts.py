"""Every fusion with every head: learns, reaches every parameter, answers alike alone and in a batch, can be saved."""

from itertools import product

import numpy as np
import pytest
import torch

from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import TandemError
from tandem_policies.files import load_network, save
from tandem_policies.network import create
from tandem_policies.tinyvla.fusion import FUSIONS
from tandem_policies.tinyvla.head import HEADS, noise_of

TWO = (Camera("top", 16, 24), Camera("wrist", 16, 16))
SMALL = {"dim": 32, "heads": 2, "fusion_heads": 4, "vision_depth": 1, "head_dim": 32, "chunk_size": 3}
KEYS = [(7, 0), (7, 1), (8, 0)]


def spread_statistics(network) -> None:
    ones = {key: np.ones(size, np.float32) for key, size in (("state", 2), ("action", 2))}
    network.set_statistics({key: {"mean": 0 * v, "std": v / 2, "min": -v, "max": v} for key, v in ones.items()})


@pytest.mark.parametrize(("fusion", "head"), list(product(FUSIONS, HEADS)))
def test_every_fusion_with_every_head(body, batch_of, descend, chunks_of, tmp_path, fusion, head):
    torch.manual_seed(0)
    depth = 2 if fusion == "tokens" else 1
    network = create("tinyvla", body(cameras=TWO), fusion=fusion, head=head, fusion_depth=depth, queries=2, **SMALL)
    spread_statistics(network)
    batch = batch_of(network, size=8)
    network.eval()
    before = network.loss(batch)[0].item()
    network.train()
    descend(network, lambda step: batch, 20, rate=3e-3, inertia=0)
    network.loss(batch)[0].backward()  # gates have opened by now
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []
    network.eval()
    assert network.loss(batch)[0].item() < 0.9 * before
    assert network.loss(batch)[0] == network.loss(batch)[0]  # a validation repeats, noise and all

    batch = {key: value[:3] for key, value in batch.items()}
    chunks = chunks_of(network, batch, noisy=head == "flow")
    again = load_network(save(network, tmp_path / "policy"))
    assert torch.equal(chunks_of(again, batch, noisy=head == "flow"), chunks)
    assert again.config == network.config


@pytest.mark.parametrize("fusion", ["gated", "tokens"])
def test_attention_of_the_other_fusions_is_a_map_too(body, batch_of, fusion):
    network = create("tinyvla", body(cameras=TWO), fusion=fusion, **SMALL).eval()
    maps = [network.attention(batch_of(network), camera.name) for camera in TWO]
    assert [tuple(look.shape) for look in maps] == [(3, 2, 3), (3, 2, 2)]
    total = sum(look.sum((1, 2)) for look in maps)
    assert ((total > 0) & (total <= 1 + 1e-5)).all()
    if fusion == "gated":
        torch.testing.assert_close(total, torch.ones(3))


def test_a_pooled_policy_has_no_attention_to_show(body, batch_of):
    network = create("tinyvla", body(), fusion="pooled", **SMALL).eval()
    with pytest.raises(TandemError, match=r"fusion 'pooled' has no attention \(allowed: cross_attention"):
        network.attention(batch_of(network))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_hears_and_sees(body, batch_of, fusion):
    network = create("tinyvla", body(cameras=TWO), fusion=fusion, **SMALL).eval()
    if fusion == "gated":  # closed at first: the policy begins as one that hears and is blind
        assert not network.fusion.blocks[0].gates.any()
        torch.nn.init.ones_(network.fusion.blocks[0].gates)
    batch = batch_of(network)
    before = network.predict(batch)
    for change in (
        {"images.wrist": 255 - batch["images.wrist"]},
        {"images.top": batch["images.top"].flip(2)},
        network.tokenize(["where is the purple cube", "stop", "x"]),
    ):
        assert ((network.predict({**batch, **change}) - before).abs().amax((1, 2)) > 1e-6).all()


def test_an_empty_instruction_is_no_crash_for_fusions_that_read_words(body, batch_of):
    network = create("tinyvla", body(), fusion="tokens", fusion_depth=2, **SMALL).eval()
    batch = batch_of(network) | network.tokenize(["", "", ""])
    assert torch.isfinite(network.predict(batch)).all()
    deaf = create("tinyvla", body(hears=False), fusion="tokens", **SMALL).eval()
    assert deaf.predict(batch_of(deaf)).shape == (3, 3, 2)


def test_words_padded_or_encoded_ahead_change_nothing(body, batch_of):
    network = create("tinyvla", body(), fusion="tokens", fusion_depth=2, **SMALL).eval()
    batch = batch_of(network)
    assert network.encode_language(batch) is None  # the words are needed, not their summary alone
    wider = {key: torch.nn.functional.pad(batch[key], (0, 5)) for key in ("tokens", "tokens_mask")}
    torch.testing.assert_close(network.predict({**batch, **wider}), network.predict(batch), rtol=0, atol=1e-5)


def test_a_flows_noise_comes_from_the_key_alone(body, batch_of):
    network = create("tinyvla", body(), head="flow", **SMALL).eval()
    batch = batch_of(network)
    first = network.predict(batch, KEYS)
    torch.manual_seed(99)
    torch.rand(3)
    assert torch.equal(network.predict(batch, KEYS), first)
    assert not torch.allclose(network.predict(batch, [(7, 1), (7, 0), (8, 0)])[:2], first[:2], atol=1e-3)
    draws = np.stack([noise_of((seed, index), (50, 8)) for seed in range(4) for index in range(4)])
    assert abs(draws.mean()) < 0.05
    assert abs(draws.std() - 1) < 0.05
    assert np.abs(np.corrcoef(draws.reshape(16, -1)) - np.eye(16)).max() < 0.25


def test_a_flow_learns_both_of_two_ways_where_regression_learns_their_mean(body, batch_of, descend):
    torch.manual_seed(1)
    spreads = {}
    for head in ("flow", "continuous"):
        network = create(
            "tinyvla", body(), head=head, chunk_size=1, dim=32, vision_depth=0, head_dim=64, fusion_dropout=0.0
        )
        spread_statistics(network)
        batch = batch_of(network, size=32)
        batch = {key: value[:1].expand(32, *value.shape[1:]).clone() for key, value in batch.items()}
        batch["action"] = torch.where(torch.arange(32) % 2 == 0, 1.0, -1.0)[:, None, None].expand(32, 1, 2).clone()
        descend(network, lambda step, batch=batch: batch, 80, rate=3e-3, inertia=0)
        ways = network.eval().predict(batch, [(3, index) for index in range(32)])[:, 0, 0]
        spreads[head] = ways.abs().mean().item()
        if head == "flow":
            assert 0.2 < (ways > 0).float().mean() < 0.8
    assert spreads["continuous"] < 0.3
    assert spreads["flow"] > 0.7


@pytest.mark.parametrize("decoding", ["expectation", "argmax"])
def test_bins_lie_between_the_datas_least_and_greatest(body, batch_of, descend, decoding):
    torch.manual_seed(0)
    network = create("tinyvla", body(), head="bins", bins=9, bin_decoding=decoding, **SMALL | {"head_dim": 64})
    spread_statistics(network)
    batch = batch_of(network, size=4)
    batch["action"][0] = 30.0  # beyond the data: counts as the greatest
    descend(network, lambda step: batch, 60, rate=3e-3, inertia=0)
    chunk = network.eval().predict(batch)
    assert chunk.abs().max() <= 1 + 1e-5
    assert (chunk[0] - 1).abs().max() < 0.2
    miss = (chunk[1:] - batch["action"][1:]).abs()
    grid = (chunk * 4 - (chunk * 4).round()).abs().max()  # 9 values from -1 to 1
    assert miss.max() < (0.15 if decoding == "expectation" else 0.13)
    assert (grid < 1e-4) == (decoding == "argmax")


@pytest.mark.parametrize(("decoding", "wanted"), [("expectation", [0, 0, 0.6, 0.4, 0]), ("argmax", [0, 0, 1, 0, 0])])
def test_a_target_between_two_bins_counts_for_both_or_for_the_nearest(body, batch_of, decoding, wanted):
    """Where all bins are as likely, the gradient on the logits is what they lack."""
    network = create("tinyvla", body(), head="bins", bins=5, bin_decoding=decoding, **SMALL).eval()
    spread_statistics(network)
    last = network.head[-2]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    batch = batch_of(network)
    batch["action"][:] = 0.2  # the bins' values are -1, -0.5, 0, 0.5 and 1
    network.loss(batch)[0].backward()
    lacking = 1 / 5 - last.bias.grad.view(6, 5) * 6  # a mean over the chunk's 6 numbers
    torch.testing.assert_close(lacking, torch.tensor(wanted, dtype=torch.float32).expand(6, 5))


def test_bins_of_a_scalar_that_never_varied_give_its_value(body, batch_of, statistics_of):
    network = create("tinyvla", body(), head="bins", **SMALL).eval()
    statistics = statistics_of(network.embodiment)
    for quantity, value in (("mean", 0.3), ("std", 0.0), ("min", 0.3), ("max", 0.3)):
        statistics["action"][quantity][0] = value
    network.set_statistics(statistics)
    batch = batch_of(network)
    torch.testing.assert_close(network.predict(batch)[..., 0], torch.full((3, 3), 0.3))
    assert torch.isfinite(network.loss(batch)[0])


@pytest.mark.parametrize("head", HEADS)
def test_padded_actions_count_for_nothing_in_any_head(body, batch_of, head):
    network = create("tinyvla", body(), head=head, **SMALL).eval()
    batch = batch_of(network)
    batch["action_is_pad"][:, 1:] = True
    within, beyond = batch["action"].clone(), batch["action"].clone()
    beyond[:, 1:] += 0.5
    within[:, :1] += 0.5
    loss = network.loss(batch)[0]
    if head != "flow":  # a flow's input is the whole noised chunk, padding too
        assert network.loss({**batch, "action": beyond})[0] == loss
    assert network.loss({**batch, "action": within})[0] != loss
    assert network.loss({**batch, "action_is_pad": torch.ones(3, 3, dtype=torch.bool)})[0] == 0


@pytest.mark.slow  # torch imports its compiler for it
def test_recomputed_activations_give_the_same_gradients(body, batch_of):
    gradients = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        network = create("tinyvla", body(), text_decoder=False, head="flow", dropout=0.1, **SMALL)
        if recomputed:
            network.gradient_checkpointing_enable()
        torch.manual_seed(1)
        network.loss(batch_of(network))[0].backward()
        gradients.append([value.grad for value in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(("fusion", "head"), [("cross_attention", "bins"), ("tokens", "flow"), ("gated", "continuous")])
def test_half_precision_trains_with_losses_and_positions_in_full(body, batch_of, fusion, head):
    network = create("tinyvla", body(), fusion=fusion, head=head, **SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        batch = batch_of(network)
        loss, _ = network.loss(batch)
        chunk = network.eval().predict(batch, KEYS)
    loss.backward()
    assert (loss.dtype, chunk.dtype) == (torch.float32, torch.float32)
    assert torch.isfinite(loss)


def test_positions_are_read_out_in_full_under_autocast(body, batch_of):
    """Regression: under bfloat16 autocast the expected position was a bfloat16 product, wrong by up to 1/256."""
    network = create("tinyvla", body(cameras=(Camera("top", 64, 64),)), **SMALL).eval()
    batch = batch_of(network)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        features, weights = network._features(batch)
    expected = (weights.double() @ network.fusion.places.double()).flatten(1)
    read_out = features[:, network.fusion.fused_features : network.fusion.out_features]
    torch.testing.assert_close(read_out.double(), expected, rtol=0, atol=1e-6)
