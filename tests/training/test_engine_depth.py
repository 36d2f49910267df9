"""What the trainer's keys switch on, on a stage of a few hundred parameters."""

import json
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_stage
import torch
from PIL import Image
from tiny_stage import settings
from torch import nn

from tandem_datasets.errors import TandemError
from tandem_policies.network import create
from tandem_training.data import Order
from tandem_training.engine.checkpoint import read_checkpoint
from tandem_training.engine.feed import Feed
from tandem_training.engine.hardware import cpu_threads, make_accelerator
from tandem_training.engine.loop import Engine
from tandem_training.engine.parameters import select
from tandem_training.engine.report import read_history
from tandem_training.engine.tracking import _require_server, open_wandb


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


GROUPS = [{"pattern": r"^3\.", "lr": 0.1}, {"pattern": "bias", "weight_decay": 0.0}]


def test_groups_take_the_first_match():
    module = tiny_stage.make_stage().module
    groups = select(module, settings(groups=GROUPS)).groups
    found = [
        ({tuple(value.shape) for value in group["params"]}, group["lr"], group["weight_decay"]) for group in groups
    ]
    assert found == [({(2, 16), (2,)}, 0.1, 0.01), ({(16,)}, 0.01, 0.0), ({(16, 8)}, 0.01, 0.01)]


def test_vectors_without_decay():
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    groups = select(module, settings(decay_vectors=False)).groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.01), (3, 0.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ["^4"]}, r"trainer.freeze: '\^4' matches no parameter \(there are: 0, 3\)"),
        ({"freeze": [""]}, "no parameter is left to train"),
        ({"groups": [{"pattern": "x", "lr": 1}]}, "trainer.groups: 'x' matches no parameter that"),
        ({"groups": [{"pattern": "", "lr": 1}, {"pattern": "3", "lr": 1}]}, r"'3' matches .* \(there are: none\)"),
        ({"groups": [{"pattern": "3", "lr": 1}], "freeze": ["^3"]}, r"'3' matches no parameter"),
    ],
)
def test_patterns_that_match_nothing(changes, message):
    with pytest.raises(TandemError, match=message):
        select(tiny_stage.make_stage().module, settings(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": "x"}, r"trainer.groups is 'x' \(allowed: a list"),
        ({"groups": ["x"]}, r"trainer.groups\[0\] is 'x'"),
        ({"groups": [{"lr": 1}]}, r"trainer.groups\[0\]: missing pattern"),
        ({"groups": [{"pattern": "x"}]}, r"trainer.groups\[0\]: missing lr or weight_decay"),
        ({"groups": [{"pattern": "x", "lt": 1}]}, "did you mean 'lr'"),
        ({"groups": [{"pattern": "x", "lr": -1}]}, r"trainer.groups\[0\].lr is -1"),
        ({"groups": [{"pattern": "(", "lr": 1}]}, r"pattern is '\(': missing \).* \(allowed: a regular expression\)"),
        ({"freeze": "x"}, "trainer.freeze is 'x'"),
        ({"freeze": [3]}, r"trainer.freeze\[0\] is 3 \(allowed: a regular expression\)"),
        ({"compile": "yes"}, "trainer.compile is 'yes' .allowed: true or false"),
        ({"early_stop_after": 0}, "trainer.early_stop_after is 0"),
        ({"wandb": "onlin"}, "did you mean 'online'"),
        ({"wandb_project": ""}, "trainer.wandb_project is ''"),
        ({"schedule": "sqrt"}, "trainer.schedule: unknown name 'sqrt'; did you mean 'inverse_sqrt'"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(TandemError, match=message) as error:
        settings(**changes)
    assert "\n" not in str(error.value)


def test_a_bare_off_is_off():
    """YAML reads it as false."""
    assert settings(wandb=False).wandb == "off"


def test_open_and_closed_schedules():
    linear = settings(schedule="linear", max_steps=103, warmup_steps=3, lr=1.0, final_lr=0.1)
    rates = [linear.learning_rate(step) for step in (0, 2, 3, 53, 103)]
    assert rates == pytest.approx([1 / 3, 1.0, 1.0, 0.55, 0.1])
    root = settings(schedule="inverse_sqrt", warmup_steps=4, lr=1.0)
    assert [root.learning_rate(step) for step in (3, 15, 63)] == pytest.approx([1.0, 0.5, 0.25])


def test_frozen_weights_stay_and_their_dropout_is_off(tmp_path):
    stage = tiny_stage.make_stage()
    stage.module = nn.Sequential(nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5)), nn.Linear(16, 2))
    before = {name: value.clone() for name, value in stage.module.state_dict().items()}
    modes = []
    stage.module[0][1].register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    after = tiny_stage.train(tmp_path, stage, freeze=[r"^0\."], max_steps=7)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"1.weight", "1.bias"}
    assert set(modes) == {False}
    ema = read_checkpoint(tmp_path)[1]["ema"]
    assert [tuple(value.shape) for value in ema] == [(2, 16), (2,)]


def test_a_stopped_run_goes_on_exactly_with_everything_on(tmp_path):
    changes = {"groups": GROUPS, "freeze": [r"^0\.weight"], "decay_vectors": False, "prefetch": 3, "schedule": "linear"}
    straight = tiny_stage.train(tmp_path / "a", **changes)
    with pytest.raises(KeyboardInterrupt):
        tiny_stage.train(tmp_path / "b", tiny_stage.make_stage("interrupt", 7), **changes)
    assert read_checkpoint(tmp_path / "b")[0].step < 24
    assert equal(tiny_stage.train(tmp_path / "b", **changes), straight)
    assert read_history(tmp_path / "a", clock=False) == read_history(tmp_path / "b", clock=False)


def test_prefetched_batches_are_the_same(tmp_path):
    straight = tiny_stage.train(tmp_path / "a", max_steps=9)
    assert equal(tiny_stage.train(tmp_path / "b", max_steps=9, prefetch=4), straight)


def test_a_prefetching_feed_gives_every_index_and_the_error_of_its_own():
    def make(index):
        if index == 3:
            raise TandemError("three")
        return {"index": torch.tensor(index)}

    feed = Feed(make, torch.device("cpu"), 2, 5)
    assert [int(feed.take(index)["index"]) for index in (0, 1, 2)] == [0, 1, 2]
    with pytest.raises(TandemError, match="three"):
        feed.take(3)
    assert int(feed.take(1)["index"]) == 1  # another order than expected
    feed.close()


def test_early_stop(tmp_path, capsys):
    class Flat(tiny_stage.TinyStage):
        def validate(self):
            return {"loss": 1.0}

    def stage():
        made = tiny_stage.make_stage()
        made.__class__ = Flat
        return made

    tiny_stage.train(tmp_path, stage(), early_stop_after=2, max_steps=40, val_every=4, log_every=5)
    progress = read_checkpoint(tmp_path)[0]
    assert (progress.step, progress.best_step, progress.stale) == (12, 4, 2)
    assert [record["step"] for record in read_history(tmp_path) if "loss" in record] == [5, 10, 12]
    assert "loss has not improved in 2 validations: training ends here" in capsys.readouterr().out
    engine = tiny_stage.make_engine(tmp_path, stage(), early_stop_after=2, max_steps=40, val_every=4, log_every=5)
    assert engine.fit().step == 12  # it has ended, and stays so
    assert engine.facts()["stopped_early"]
    longer = tiny_stage.make_engine(tmp_path, stage(), max_steps=20, val_every=4, log_every=5)
    assert longer.fit().step == 20


def test_gradient_checkpointing_wants_a_module_that_can(tmp_path):
    with pytest.raises(
        TandemError, match=r"gradient_checkpointing is true, but Sequential cannot do it .allowed: false"
    ):
        tiny_stage.make_engine(tmp_path, gradient_checkpointing=True)


def test_fp16_needs_a_gpu():
    with pytest.raises(TandemError, match=r"precision=fp16 needs a GPU \(allowed on a cpu: fp32, bf16\)"):
        make_accelerator("cpu", "fp16", "test")


def scaled_engine(out, stage, **changes):
    """An engine with the gradient scaler that accelerate makes for fp16, which it does on a GPU only."""
    out.mkdir(exist_ok=True)
    accelerator = make_accelerator("cpu", "fp32", "test")
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    made = settings(ema=0.0, **changes)
    return tiny_stage.Engine(stage, made, accelerator, out, seed=3, started=0.0)


@dataclass(kw_only=True)
class Overflowing(tiny_stage.TinyStage):
    """Its gradient overflows at some steps, its loss never does."""

    steps: tuple[int, ...] = ()

    def batch(self, index, shard):
        scale = 1e38 if index // 2 in self.steps else 0.0
        return {**super().batch(index, shard), "scale": torch.tensor(scale)}

    def loss(self, batch):
        loss, logged = super().loss(batch)
        bias = self.module[3].bias
        return loss + (bias - bias.detach()).sum() * batch["scale"] * batch["scale"], logged


def overflowing(*steps, trouble="", at=-1):
    made = tiny_stage.make_stage(trouble, at)
    return Overflowing(**{**vars(made), "steps": steps})


def test_skipped_steps_are_no_failure_and_the_scaler_resumes(tmp_path):
    with cpu_threads(1):
        straight = overflowing(4, 9)
        scaled_engine(tmp_path / "a", straight).fit()
        skipped = {record["step"]: record["skipped"] for record in read_history(tmp_path / "a") if "loss" in record}
        assert skipped == pytest.approx({3: 0, 6: 1 / 3, 9: 0, 12: 1 / 3, 15: 0, 18: 0, 21: 0, 24: 0})
        assert np.isfinite([record["grad_norm"] for record in read_history(tmp_path / "a") if "loss" in record]).all()
        scaler = read_checkpoint(tmp_path / "a")[1]["scaler"]
        assert scaler["scale"] > 2.0**10  # halved twice, doubled often
        with pytest.raises(KeyboardInterrupt):
            scaled_engine(tmp_path / "b", overflowing(4, 9, trouble="interrupt", at=7)).fit()
        other = overflowing(4, 9)
        scaled_engine(tmp_path / "b", other).fit()
    assert equal(straight.module.state_dict(), other.module.state_dict())
    assert read_checkpoint(tmp_path / "b")[1]["scaler"] == scaler


def test_a_gradient_that_overflows_for_ever_ends_the_training(tmp_path):
    with pytest.raises(TandemError, match="fp16: every gradient overflows"), cpu_threads(1):
        scaled_engine(tmp_path, overflowing(*range(200)), max_steps=200, val_every=200, checkpoint_every=200).fit()


@dataclass(kw_only=True)
class Padded(tiny_stage.TinyStage):
    """Its loss is a mean over some of the rows of a batch."""

    real: torch.Tensor

    def batch(self, index, shard):
        return {**super().batch(index, shard), "real": self.real[torch.from_numpy(self.order(index))]}

    def weight(self, batch):
        return batch["real"].mean()

    def loss(self, batch):
        errors = (self.module(batch["x"]) - batch["y"]).square().mean(1)
        return (errors * batch["real"]).sum() / batch["real"].sum().clamp(min=1), {}


def test_accumulation_is_exact_where_micro_batches_count_differently(tmp_path):
    """The mean of two means is the mean of all only if both are of equally many."""
    weights, losses = [], []
    for name, size, accumulate in (("one", 16, 1), ("four", 4, 4)):
        made = tiny_stage.make_stage()
        made.module[2].p = 0.0
        stage = Padded(**{**vars(made), "real": (torch.arange(50) % 3 == 0).float()})
        stage.order = Order(stage.order._samples, size, seed=3)
        weights.append(tiny_stage.train(tmp_path / name, stage, accumulate=accumulate, batch_size=size, max_steps=6))
        losses.append([record["loss"] for record in read_history(tmp_path / name) if "loss" in record])
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-7)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_input_time_is_measured(tmp_path):
    engine = tiny_stage.make_engine(tmp_path)
    engine.fit()
    record = next(record for record in read_history(tmp_path) if "loss" in record)
    assert 0 < record["wait_fraction"] < 1
    facts = engine.facts()
    assert 0 < facts["input_s"] < facts["step_s"] < facts["seconds"]
    assert facts["wait_fraction"] == pytest.approx(facts["input_s"] / facts["step_s"])
    assert engine.progress.timed_steps == 23  # not the first one


def small_policy(embodiment, **changes):
    torch.manual_seed(0)
    sizes = {"dim": 16, "heads": 2, "vision_depth": 2, "head_dim": 16, "fusion_heads": 4, "dropout": 0.1}
    network = create("tinyvla", embodiment, **{**sizes, **changes})
    network.set_statistics(
        {key: dict(zip(("mean", "std", "min", "max"), rows, strict=True)) for key, rows in STATISTICS.items()}
    )
    return network


STATISTICS = {
    "state": np.array([[4.1], [0.7], [0.0], [8.0]]),
    "action": np.array([[0.1, 0.2], [0.3, 0.4], [-1, -1], [1, 1]]),
}


def small_batch(network):
    random = torch.Generator().manual_seed(1)
    return {
        "images.top": torch.randint(0, 255, (6, 16, 16, 3), generator=random, dtype=torch.uint8),
        "state": 8 * torch.rand((6, 1), generator=random),
        "action": torch.rand((6, network.chunk_size, 2), generator=random),
        "action_is_pad": torch.zeros((6, network.chunk_size), dtype=torch.bool),
        **network.tokenize(["find red"] * 6),
    }


def test_nothing_is_normalised_in_half_precision(small_embodiment):
    """Rounded to 8 bits, a state of 4.1 +- 0.7 or a pixel would lose more than what it says."""
    network = small_policy(small_embodiment).eval()
    batch, seen = small_batch(network), {}
    for name in ("vision.stem", "state"):
        network.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: seen.setdefault(name, inputs[0])
        )
    exact = network.normalised("state", batch["state"]), network.normalised("action", batch["action"])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        halves = network.normalised("state", batch["state"]), network.normalised("action", batch["action"])
        loss, chunk = network.loss(batch)[0], network.predict(batch)
    assert {value.dtype for value in (*halves, *seen.values(), loss, chunk)} == {torch.float32}
    assert all(torch.equal(*pair) for pair in zip(exact, halves, strict=True))
    assert torch.equal(seen["state"], exact[0])


@dataclass(kw_only=True)
class Drawing(tiny_stage.TinyStage):
    """Draws the randomness that it was given, and whether dropout is off."""

    drawn: list

    def pictures(self):
        self.drawn.append((self.module.training, torch.is_grad_enabled(), float(torch.rand(()))))
        return {"noise": np.full((4, 6, 3), int(255 * self.drawn[-1][2]), np.uint8)}


def test_pictures_lie_beside_the_curves(tmp_path):
    stage = Drawing(**vars(tiny_stage.make_stage()), drawn=[])
    straight = tiny_stage.train(tmp_path / "plain", max_steps=12)
    assert equal(tiny_stage.train(tmp_path / "drawn", stage, max_steps=12), straight)
    assert {row[:2] for row in stage.drawn} == {(False, False)}
    names = sorted(path.name for path in (tmp_path / "drawn" / "pictures").iterdir())
    assert names == ["12-noise.png", "6-noise.png"]
    picture = np.asarray(Image.open(tmp_path / "drawn" / "pictures" / names[0]))
    assert picture.shape == (4, 6, 3)
    assert not (tmp_path / "plain" / "pictures").exists()


def test_only_the_newest_pictures_are_kept(tmp_path):
    stage = Drawing(**vars(tiny_stage.make_stage()), drawn=[])
    tiny_stage.train(tmp_path, stage, max_steps=24, val_every=1)
    steps = {int(path.name.split("-")[0]) for path in (tmp_path / "pictures").iterdir()}
    assert steps == set(range(5, 25))


def test_wandb_offline_keeps_its_run_over_a_resume(tmp_path):
    """The whole of it, on files: nothing is sent."""
    import wandb

    made = settings(wandb="offline", wandb_name="mine")
    lines = []
    for steps in (6, 12):
        tracker, line = open_wandb(made, tmp_path, {"seed": 3})
        stage = Drawing(**vars(tiny_stage.make_stage()), drawn=[])
        with cpu_threads(1):
            tiny_stage.make_engine(tmp_path, stage, max_steps=steps, schedule="constant").fit(tracker)
        lines.append(line)
    wandb.teardown()  # its own process writes what is left
    identity = json.loads((tmp_path / "wandb.json").read_text())["id"]
    parts = sorted((tmp_path / "wandb").glob(f"offline-run-*-{identity}*"))  # two of one second end in -1
    assert lines == [f"W&B run {identity}: {part}" for part in parts]
    for part in parts:
        content = (part / f"run-{identity}.wandb").read_bytes()
        assert b"train/grad_norm" in content
        assert b"val/loss" in content
        assert b"pictures/noise" in content


def test_wandb_damaged_id(tmp_path):
    (tmp_path / "wandb.json").write_text("{}")
    with pytest.raises(TandemError, match=r"wandb.json: holds no run id"):
        open_wandb(settings(wandb="offline"), tmp_path, {})


def test_wandb_online_without_a_server_is_one_line():
    with pytest.raises(TandemError, match=r"wandb=online: http://127.0.0.1:9 does not answer: .*refused.*offline"):
        _require_server("http://127.0.0.1:9", "trainer.wandb=online")


@pytest.mark.slow
@pytest.mark.timeout(900)  # a C++ compiler on a busy machine
def test_compiled_weights_keep_their_names(tmp_path):
    plain = tiny_stage.train(tmp_path / "plain", max_steps=6)
    compiled = tiny_stage.train(tmp_path / "compiled", max_steps=6, compile=True)
    assert compiled.keys() == plain.keys() == read_checkpoint(tmp_path / "compiled")[1]["module"].keys()
    with pytest.raises(KeyboardInterrupt):
        tiny_stage.train(tmp_path / "b", tiny_stage.make_stage("interrupt", 2), max_steps=6, compile=True)
    assert equal(tiny_stage.train(tmp_path / "b", max_steps=6, compile=True), compiled)


def test_compiling_wants_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TandemError, match=r"trainer.compile: no C\+\+ compiler: no-such-compiler"):
        tiny_stage.make_engine(tmp_path, compile=True)


def test_a_batch_that_the_processes_cannot_share_evenly_is_refused(tmp_path):
    three = SimpleNamespace(process_index=0, num_processes=3)
    with pytest.raises(TandemError, match=r"batch_size is 16 on 3 processes \(allowed: a multiple of 3\)$"):
        Engine(tiny_stage.make_stage(), settings(), three, tmp_path, seed=3, started=time.time())


def test_machines_that_do_not_share_a_folder_do_not_go_on(tmp_path):
    """One found the checkpoint at step 5, the other none: it would begin at step 0 with the first one's weights."""

    class Two:
        process_index, num_processes = 0, 2

        def __init__(self, other):
            self.own, self.other = make_accelerator("cpu", "fp32", "test"), other

        def __getattr__(self, name):
            return getattr(self.own, name)

        def gather(self, step):
            return torch.cat([step, torch.full_like(step, self.other)])

    tiny_stage.train(tmp_path, max_steps=5)
    for other in (5, 0):
        arguments = (tiny_stage.make_stage(), settings(max_steps=9), Two(other), tmp_path)
        if other == 5:
            assert Engine(*arguments, seed=3, started=time.time()).progress.step == 5
            continue
        with pytest.raises(TandemError, match=r"go on from different steps \(0, 5\) of .* that all machines share"):
            Engine(*arguments, seed=3, started=time.time())


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_weights_split_over_processes_are_refused(monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(TandemError, match=rf"^here: accelerate is set up for {name} \(allowed: one process, or"):
        make_accelerator("cpu", "fp32", "here")
