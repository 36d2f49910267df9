"""The text decoder: what is said is what is done, in words that fit the frame."""

import pytest
import torch

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_policies.files import load_network, save
from tandem_policies.network import create
from tandem_policies.tinyvla.words import movers

STEP, ANSWER = ActionKind.DELTA_STEP, ActionKind.DELTA_OBSERVATION
SMALL = {"dim": 32, "heads": 2, "fusion_heads": 4, "vision_depth": 1, "head_dim": 32, "chunk_size": 2}


def embodiment(*names: str, kind: ActionKind = STEP, frame: str = "board", unit: str = "cell") -> Embodiment:
    return Embodiment(
        name="mover",
        rate_hz=10.0,
        hears_instruction=True,
        cameras=(Camera("top", 16, 16, frame_id="board"),),
        state=(StateScalar("agent/x", "cell", 0.0, 8.0, StateSource.POSE),),
        action=tuple(ActionScalar(name, unit, -1.0, 1.0, kind, frame=frame) for name in names),
    )


def spoken(body: Embodiment, *actions: list[float], pad: int = 0) -> str:
    """The sentence of a chunk whose last ``pad`` actions are padding, where the data reach to 1."""
    chunk = torch.tensor([actions])
    is_pad = torch.arange(len(actions))[None] >= len(actions) - pad
    several = len(movers(body)) > 1
    parts = [
        mover.phrases(several)[int(mover.codes(chunk, is_pad, torch.ones(len(body.action))))] for mover in movers(body)
    ]
    return "; ".join(parts)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([1.0, 0.0], "move right"),
        ([-0.7, 0.2], "move left"),
        ([0.0, 1.0], "move down"),
        ([0.1, -1.0], "move up"),
        ([0.7, -0.7], "move up and right"),
        ([-0.5, 0.3], "move down and left"),
        ([0.05, -0.05], "stay"),
        ([0.0, 0.0], "stay"),
    ],
)
def test_a_camera_s_frame_has_x_right_and_y_down(action, words):
    assert spoken(embodiment("agent/dx", "agent/dy"), action) == words
    assert spoken(embodiment("agent/dy", "agent/dx"), action[::-1]) == words


def test_every_eighth_of_a_circle_has_its_word():
    body = embodiment("agent/dx", "agent/dy")
    angles = torch.arange(360) * (torch.pi / 180)
    said = [spoken(body, [float(angle.cos()), float(angle.sin())]) for angle in angles]
    assert {words: said.count(words) for words in set(said)}.keys() == {
        "move right", "move down and right", "move down", "move down and left", "move left", "move up and left",
        "move up", "move up and right",
    }  # fmt: skip
    assert all(44 <= said.count(words) <= 46 for words in set(said))


def test_another_frame_has_x_forward_y_left_and_z_up():
    body = embodiment("tool/dx", "tool/dy", "tool/dz", "gripper/width", frame="base_link", unit="m")
    assert spoken(body, [0.5, 0.0, 0.0, 1.0]) == "move forward"
    assert spoken(body, [-0.5, -0.5, 0.5, 0.0]) == "move back, right and up"
    assert spoken(body, [0.0, 0.4, -0.4, 0.0]) == "move left and down"


def test_steps_add_up_and_answers_end_with_their_last():
    back_and_forth = ([1.0, 0.0], [-1.0, 0.0])
    assert spoken(embodiment("agent/dx", "agent/dy"), *back_and_forth) == "stay"
    assert spoken(embodiment("direction/x", "direction/y", kind=ANSWER), *back_and_forth) == "move left"


@pytest.mark.parametrize("kind", [STEP, ANSWER])
def test_padding_says_nothing(kind):
    body = embodiment("agent/dx", "agent/dy", kind=kind)
    assert spoken(body, [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], pad=2) == "move down"


def test_two_tools_are_told_apart():
    body = embodiment("left_tcp/dx", "left_tcp/dy", "right_tcp/dx", "right_tcp/dy")
    assert spoken(body, [1.0, 0.0, 0.0, 0.0]) == "left tcp: move right; right tcp: stay"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (embodiment("elbow", "wrist", unit="rad"), r"no words for elbow \(delta_step\), wrist .*wanted: a relative"),
        (embodiment("tool/x", kind=ActionKind.ABSOLUTE), r"no words for tool/x \(absolute\)"),
    ],
)
def test_actions_that_displace_nothing_are_refused_when_it_is_built(body, message):
    with pytest.raises(TandemError, match=message):
        create("tinyvla", body, text_decoder=True, **SMALL)


def test_axes_of_different_units_are_refused():
    scalars = (ActionScalar("t/dx", "m", -1, 1, STEP), ActionScalar("t/dy", "mm", -1, 1, STEP))
    body = Embodiment("odd", 10.0, True, (Camera("top", 16, 16),), (), scalars)
    with pytest.raises(TandemError, match=r"t/dx m - delta_step; t/dy mm .*wanted: one unit"):
        create("tinyvla", body, text_decoder=True, **SMALL)


def ways_to_go(network, count: int = 48):
    """Boards where the light side says where to go, in the four directions by turns."""
    directions = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])[torch.arange(count) % 4]
    images = torch.zeros(count, 16, 16, 3, dtype=torch.uint8)
    for image, (x, y) in zip(images, directions.tolist(), strict=True):
        image[:, slice(8, 16) if x > 0 else slice(0, 8) if x < 0 else slice(0, 0)] = 255
        image[slice(8, 16) if y > 0 else slice(0, 8) if y < 0 else slice(0, 0)] = 255
    return {
        "images.top": images,
        "state": torch.zeros(count, 1),
        "action": directions[:, None].expand(-1, 2, -1).clone(),
        "action_is_pad": torch.zeros(count, 2, dtype=torch.bool),
        **network.tokenize(["go to the light"] * count),
    }


def test_it_learns_to_say_what_it_does_and_still_does_when_opened_again(descend, tmp_path):
    torch.manual_seed(0)
    network = create(
        "tinyvla", embodiment("agent/dx", "agent/dy"), text_decoder=True, text_weight=1.0, fusion_dropout=0.0,
        vision_drop=0.0, **SMALL,
    )  # fmt: skip
    assert network.speaks
    batch = ways_to_go(network)
    descend(network, lambda step: batch, 70, rate=3e-3, inertia=0.9)
    network.eval()
    _, metrics = network.loss(batch)
    assert metrics["text_accuracy"] == 1.0
    assert network.say(batch)[:4] == ["move right", "move left", "move down", "move up"]
    again = load_network(save(network, tmp_path / "policy"))
    assert again.say(batch) == network.say(batch)


def test_a_wrong_sentence_is_counted_and_padding_is_not(batch_of):
    network = create("tinyvla", embodiment("agent/dx", "agent/dy"), text_decoder=True, **SMALL).eval()
    batch = ways_to_go(network, 8)
    said = network.say(batch)
    wanted = ["move right", "move left", "move down", "move up"] * 2
    share = sum(one == other for one, other in zip(said, wanted, strict=True)) / 8
    assert network.loss(batch)[1]["text_accuracy"].item() == pytest.approx(share)
    batch["action_is_pad"][:] = True
    _, metrics = network.loss(batch)
    assert (metrics["loss"], metrics["text_loss"], metrics["text_accuracy"]) == (0, 0, 0)


def test_batches_weighed_by_their_real_actions_add_up_to_the_loss_of_all(batch_of):
    """Regression: sentences counted alike, so that gradients of accumulated batches were not those of the whole."""
    network = create("tinyvla", embodiment("agent/dx", "agent/dy"), text_decoder=True, **SMALL).eval()
    whole = ways_to_go(network, 8)
    whole["action_is_pad"][:3, 1] = True
    parts = [{key: value[rows] for key, value in whole.items()} for rows in (slice(0, 2), slice(2, 8))]
    shares = [float(network.weight(part)) * len(part["state"]) for part in parts]
    for name, value in network.loss(whole)[1].items():
        added = sum(share * network.loss(part)[1][name] for share, part in zip(shares, parts, strict=True))
        torch.testing.assert_close(added / sum(shares), value)


def test_the_text_counts_as_much_as_it_shall():
    losses = {}
    for weight in (0.0, 0.3):
        torch.manual_seed(0)
        network = create(
            "tinyvla", embodiment("agent/dx", "agent/dy"), text_decoder=True, text_weight=weight, **SMALL
        ).eval()
        losses[weight], metrics = network.loss(ways_to_go(network, 8))
    assert metrics["text_loss"] > 0.1
    torch.testing.assert_close(losses[0.3] - losses[0.0], 0.3 * metrics["text_loss"])


def test_a_network_without_a_decoder_is_silent(body, batch_of):
    network = create("tinyvla", body(), **SMALL).eval()
    assert not network.speaks
    assert network.say(batch_of(network)) == ["", "", ""]
    assert "text_accuracy" not in network.loss(batch_of(network))[1]
