"""TinyVLA's shapes, gradients, padding, attention, instruction and size."""

import pytest
import torch

from tandem_datasets.embodiment import Camera, Encoding
from tandem_datasets.errors import TandemError
from tandem_policies.files import _Uninitialised
from tandem_policies.network import count_parameters, create, parameter_table
from tandem_training.config import compose

TWO = (Camera("top", 32, 48), Camera("wrist", 16, 16))


@pytest.mark.parametrize(
    ("parts", "config"),
    [
        ({}, {}),
        ({"states": 0}, {"chunk_size": 1}),
        ({"hears": False}, {"queries": 2}),
        ({"cameras": TWO, "actions": 7, "states": 5}, {"chunk_size": 9, "n_action_steps": 4, "fusion_depth": 2}),
        ({"cameras": TWO, "states": 0, "hears": False}, {"vision_depth": 0, "head_depth": 1, "patch": 16}),
        ({"cameras": (), "states": 5}, {"state_depth": 2}),
        ({"cameras": (), "hears": False}, {"head": "flow"}),
    ],
)
def test_every_shape_predicts_learns_and_reaches_every_parameter(body, batch_of, parts, config):
    torch.manual_seed(0)  # training withholds features at random
    network = create("tinyvla", body(**parts), **config)
    batch = batch_of(network, size=16)
    loss, metrics = network.loss(batch)
    loss.backward()
    assert loss.shape == ()
    assert {name for name, value in metrics.items() if value.requires_grad} == set()
    untouched = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert untouched == []
    chunk = network.eval().predict(batch)
    assert chunk.shape == (16, network.chunk_size, network.embodiment.action_dim)
    assert chunk.dtype == torch.float32


def test_what_is_seen_felt_and_heard_changes_the_chunk(body, batch_of):
    network = create("tinyvla", body(cameras=TWO)).eval()
    batch = batch_of(network)
    before = network.predict(batch)
    changes = {
        "images.top": {"images.top": 255 - batch["images.top"]},
        "images.wrist": {"images.wrist": 255 - batch["images.wrist"]},
        "state": {"state": -batch["state"]},
        "instruction": network.tokenize(["where is the purple cube", "stop", "x"]),
    }
    for what, change in changes.items():
        assert not torch.allclose(network.predict({**batch, **change}), before, atol=1e-6), what


def test_without_a_camera_state_and_instruction_decide(body, batch_of):
    network = create("tinyvla", body(cameras=()), head="flow", state_depth=1).eval()
    batch = batch_of(network)
    before = network.predict(batch)
    for change in ({"state": -batch["state"]}, network.tokenize(["where is the purple cube", "stop", "x"])):
        assert not torch.allclose(network.predict({**batch, **change}), before, atol=1e-6)
    with pytest.raises(TandemError, match="no camera to look through"):
        network.attention(batch)
    with pytest.raises(TandemError, match="no camera: vision_backbone 'some/encoder'"):
        create("tinyvla", body(cameras=()), vision_backbone="some/encoder")


def test_what_hardly_varies_is_not_blown_up(body, batch_of):
    """Where a brick rests varies by micrometres in demonstrations, by millimetres once somebody has touched it."""
    networks = []
    for floor in (0.0, 0.001):  # of limits from -1 to 1
        torch.manual_seed(0)
        network = create("tinyvla", body(cameras=()), state_floor=floor).eval().requires_grad_(False)
        network.state_std.copy_(torch.tensor([1e-5, 0.5]))
        networks.append(network)
    batch = batch_of(networks[0])
    moved = {**batch, "state": batch["state"] + torch.tensor([0.001, 0.0])}
    jumps = [float((network.predict(moved) - network.predict(batch)).abs().max()) for network in networks]
    assert jumps[1] < 0.1 * jumps[0]
    varied = {**batch, "state": batch["state"] * torch.tensor([0.0, 1.0])}  # the floor is below what varies enough
    torch.testing.assert_close(networks[0].predict(varied), networks[1].predict(varied))


def test_padded_actions_count_for_nothing(body, batch_of):
    network = create("tinyvla", body()).eval()
    batch = batch_of(network)
    batch["action_is_pad"][:, 2:] = True
    loss = network.loss(batch)[0]
    beyond = batch["action"].clone()
    beyond[:, 2:] += 100
    assert network.loss({**batch, "action": beyond})[0] == loss
    within = batch["action"].clone()
    within[:, :2] += 100
    assert network.loss({**batch, "action": within})[0] > loss + 1
    nothing = torch.ones_like(batch["action_is_pad"])
    assert network.loss({**batch, "action_is_pad": nothing})[0] == 0


def test_padding_of_the_text_changes_nothing(body, batch_of):
    network = create("tinyvla", body()).eval()
    batch = batch_of(network)
    for row in range(3):
        length = int(batch["tokens_mask"][row].sum())
        alone = {key: value[row : row + 1] for key, value in batch.items()}
        alone |= {key: alone[key][:, :length] for key in ("tokens", "tokens_mask")}
        torch.testing.assert_close(network.predict(alone)[0], network.predict(batch)[row], rtol=0, atol=1e-5)


def test_encoded_instructions_stand_for_their_tokens(body, batch_of):
    network = create("tinyvla", body()).eval()
    batch = batch_of(network)
    encoded = network.encode_language(batch)
    without = {key: value for key, value in batch.items() if not key.startswith("tokens")}
    assert torch.equal(network.predict({**without, "language": encoded}), network.predict(batch))


def test_attention_is_a_map_per_camera(body, batch_of):
    network = create("tinyvla", body(cameras=TWO)).eval()
    batch = batch_of(network)
    top, wrist = network.attention(batch), network.attention(batch, "wrist")
    assert (top.shape, wrist.shape) == ((3, 4, 6), (3, 2, 2))
    torch.testing.assert_close(top.sum((1, 2)) + wrist.sum((1, 2)), torch.ones(3))
    with pytest.raises(TandemError, match="no camera 'left'"):
        network.attention(batch, "left")


def test_bfloat16_autocast_trains(body, batch_of):
    network = create("tinyvla", body(cameras=TWO))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = network.loss(batch_of(network))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [
        ("nano", 200_000, 500_000),
        ("flow", 500_000, 1_500_000),
        ("minimal", 13_000_000, 15_000_000),
        ("medium", 95_000_000, 110_000_000),
        ("large", 430_000_000, 470_000_000),
    ],
)
def test_every_size_is_what_its_name_says_and_its_yaml_names_every_field(body, size, least, most):
    values = dict(compose("train", [f"policy=tinyvla/{size}"]).policy)
    with torch.device("meta"), _Uninitialised():
        network = create(embodiment=body(cameras=(Camera("top", 64, 64),)), **values)
    counts = count_parameters(network)
    assert counts["total"] == sum(value.numel() for value in network.parameters())
    assert least <= counts["total"] <= most
    assert network.config.to_dict() == {key: value for key, value in values.items() if key != "type"}
    assert "vision" in parameter_table(network)
    assert size != "nano" or network.config == type(network.config)()


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ((Camera("top", 30, 32),), "32x30 .*multiples of the patch, 8"),
        ((Camera("top", 32, 32, Encoding.DEPTH),), "is depth .*rgb8"),
        ((Camera("top", 16384, 16384),), "4194304 patches .*4096"),
    ],
)
def test_a_body_that_it_cannot_serve_is_refused(body, cameras, message):
    with pytest.raises(TandemError, match=message):
        create("tinyvla", body(cameras=cameras))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_action_steps": 9}, "n_action_steps is 9 .*at most chunk_size = 4"),
        ({"dim": 40, "heads": 4, "fusion_heads": 16}, "multiple of 4 \\* heads = 16"),
        ({"dim": 48, "heads": 4, "fusion_heads": 32}, "multiple of fusion_heads = 32"),
        ({"dim": 10**9}, "dim is 1000000000 .*8..4096"),
        ({"dim": "64"}, "dim is '64' .*int"),
        ({"chunk_size": True}, "chunk_size is True .*int"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"vocab_size": 300}, "tokenizer has 512 ids .*vocab_size 300"),
        ({"fusion": "atention"}, "fusion: unknown name 'atention'; did you mean 'cross_attention'"),
        ({"head": 3}, "head is 3 .*str"),
        ({"bins": 1}, "bins is 1 .*2..1024"),
        ({"widht": 3}, "unknown name 'widht'"),
    ],
)
def test_contradictions_are_refused(body, config, message):
    with pytest.raises(TandemError, match=message):
        create("tinyvla", body(), **config)
