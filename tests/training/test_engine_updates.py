"""What a training's steps do to its weights, number by number, on a stage whose gradient is known."""

import itertools
from dataclasses import dataclass, field

import pytest
import tiny_stage
import torch
from tiny_stage import settings
from torch import nn

from tandem_training.engine.checkpoint import read_checkpoint
from tandem_training.engine.report import read_history

PLAIN = {"accumulate": 1, "ema": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}


@dataclass(kw_only=True)
class Pushed(tiny_stage.TinyStage):
    """Its loss is the sum of its weights times a number for each step: of equal gradients Adam makes steps of just
    the learning rate.
    """

    push: tuple[float, ...] = (1.0,)  # for each step, the last one for all later ones
    before: list = field(default_factory=list)  # the weights before each step

    def batch(self, index, shard):
        self.before.append({name: value.detach().clone() for name, value in self.module.named_parameters()})
        return {"push": torch.tensor(self.push[min(index, len(self.push) - 1)])}

    def loss(self, batch):
        return batch["push"] * sum(value.sum() for value in self.module.parameters()), {}


def pushed(*push):
    return Pushed(**{**vars(tiny_stage.make_stage()), **({"push": push} if push else {})})


def moves(stage, name):
    """How far each step but the last moved the first number of a weight, downwards."""
    places = [float(weights[name].flatten()[0]) for weights in stage.before]
    return [one - other for one, other in itertools.pairwise(places)]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "inverse_sqrt"])
def test_steps_are_as_large_as_the_schedule_says(tmp_path, schedule):
    changes = {**PLAIN, "schedule": schedule, "warmup_steps": 4, "max_steps": 16, "lr": 0.01}
    stage = pushed()
    tiny_stage.train(tmp_path, stage, **changes)
    rates = [settings(**changes).learning_rate(step) for step in range(15)]
    assert rates[0] == pytest.approx(0.0025)
    assert moves(stage, "0.weight") == pytest.approx(rates, rel=1e-3)
    records = [record for record in read_history(tmp_path) if "loss" in record]
    assert [record["lr"] for record in records] == pytest.approx(
        [settings(**changes).learning_rate(record["step"] - 1) for record in records]
    )


def test_groups_move_at_their_rates_and_decay_by_their_own(tmp_path):
    groups = [{"pattern": r"^3\.", "lr": 0.03}, {"pattern": r"0\.bias", "weight_decay": 0.5}]
    stage = pushed()
    tiny_stage.train(tmp_path, stage, **{**PLAIN, "lr": 0.01, "groups": groups, "max_steps": 9})
    factors = [settings(max_steps=9).rate_factor(step) for step in range(8)]
    assert moves(stage, "3.weight") == pytest.approx([0.03 * factor for factor in factors], rel=1e-3)
    assert moves(stage, "0.weight") == pytest.approx([0.01 * factor for factor in factors], rel=1e-3)
    biases = [float(weights["0.bias"][0]) for weights in stage.before]
    decayed = [0.01 * factor * (1 + 0.5 * bias) for factor, bias in zip(factors, biases, strict=False)]
    assert moves(stage, "0.bias") == pytest.approx(decayed, rel=1e-3)


def test_a_gradient_is_cut_to_the_norm_that_is_allowed(tmp_path):
    """Cut to one norm both steps have one gradient; what is told is its norm before."""
    count = sum(value.numel() for value in tiny_stage.make_stage().module.parameters())
    for clip, equal in ((1.0, True), (0.0, False)):
        stage, out = pushed(1.0, 1000.0), tmp_path / str(clip)
        tiny_stage.train(
            out, stage, **{**PLAIN, "clip_norm": clip, "schedule": "constant", "max_steps": 3, "log_every": 1}
        )
        second = moves(stage, "0.weight")[1]
        assert (second == pytest.approx(settings(max_steps=3).learning_rate(1), rel=1e-3)) == equal
        norms = [record["grad_norm"] for record in read_history(out) if "loss" in record]
        assert norms == pytest.approx([count**0.5, 1000 * count**0.5, 1000 * count**0.5], rel=1e-4)


def test_weights_are_averaged_as_asked_and_the_average_is_validated_and_saved(tmp_path):
    """Early ones are forgotten more quickly: after step s at most (1 + s) / (10 + s) of the average is kept."""
    stage = pushed()
    saved = tiny_stage.train(tmp_path, stage, **{**PLAIN, "ema": 0.3, "max_steps": 8, "val_every": 8})
    wanted = {name: value.clone() for name, value in stage.before[0].items()}
    for step, weights in enumerate([*stage.before[1:], read_checkpoint(tmp_path)[1]["module"]]):
        kept = min(0.3, (1 + step) / (10 + step))
        wanted = {name: kept * value + (1 - kept) * weights[name] for name, value in wanted.items()}
    for name, value in saved.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-6)
    [validated] = [record["val"]["loss"] for record in read_history(tmp_path) if "val" in record]
    stage.module.load_state_dict(saved)
    with torch.no_grad():
        loss = nn.functional.mse_loss(stage.module.eval()(stage.x), stage.y)
    assert validated == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_loss_is_computed_in_the_precision_that_is_asked_for(tmp_path, precision, kind):
    stage, kinds = tiny_stage.make_stage(), set()
    stage.module[3].register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    weights = tiny_stage.train(tmp_path, stage, precision=precision, max_steps=6)
    assert kinds == {kind}
    assert {value.dtype for value in weights.values()} == {torch.float32}  # they stay whole
