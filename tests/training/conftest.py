import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder

sys.path.append(str(Path(__file__).parent))  # the tests are no package, and some import tiny_stage

SMALL = Embodiment(
    name="small",
    rate_hz=10,
    hears_instruction=True,
    cameras=(Camera("top", 16, 16),),
    state=(StateScalar("agent/x", "cell", 0, 8, StateSource.POSE),),
    action=(
        ActionScalar("agent/dx", "cell", -1, 1, ActionKind.DELTA_STEP),
        ActionScalar("agent/dy", "cell", -1, 1, ActionKind.DELTA_STEP),
    ),
)


TINY_POLICY = [
    "policy.dim=16", "policy.heads=2", "policy.vision_depth=1", "policy.head_dim=16", "policy.chunk_size=2",
]  # fmt: skip
TINY_TRAINING = [
    "preset=debug", "device=cpu", "trainer.threads=1", "trainer.max_steps=6", "trainer.batch_size=8",
    "trainer.warmup_steps=2", "trainer.log_every=2", "trainer.val_every=4", "trainer.checkpoint_every=2",
]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_policy():
    """Arguments of `tandem train` for a network of a few thousand parameters; of two that contradict the last holds."""
    return TINY_POLICY


@pytest.fixture(scope="session")
def tiny_training():
    """Arguments of `tandem train` for a few steps of any policy."""
    return TINY_TRAINING


@pytest.fixture(scope="session")
def tiny():
    """Both: a whole training in less than a second."""
    return [*TINY_POLICY, *TINY_TRAINING]


@pytest.fixture
def refused(capsys):
    """Runs a `tandem` command that must refuse its arguments; the one line that it says."""
    from tandem_training.cli import main

    def run(*command):
        assert main([*map(str, command)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return run


@pytest.fixture(scope="session")
def small_embodiment():
    return SMALL


@pytest.fixture(scope="session")
def record():
    """Records a store of small episodes; each is a string with a letter per frame.

    e, p, h: an expert, a person or nobody acted; n: a policy; N: a policy, with a label; |: another instruction from
    here on. The action of frame t of episode i is (t / 100, i / 100), its label that plus 0.5.
    """
    sources = {"e": Source.EXPERT, "p": Source.PERSON, "h": Source.HOLD, "n": Source.POLICY, "N": Source.POLICY}

    def make(path, episodes, embodiment=SMALL, wording="find {}"):
        random = np.random.default_rng(0)
        with Recorder(path, embodiment, fsync=False) as recorder:
            for number, letters in enumerate(episodes):
                begin = number * 100 * embodiment.period_ns
                recorder.begin(EpisodeInfo(seed=number, instruction=wording.format("red"), begin_ns=begin))
                colour, step = "red", 0
                for letter in letters:
                    if letter == "|":
                        colour = "blue"
                        continue
                    action = np.array([step, number], np.float32) / 100
                    observation = Observation(
                        images={"top": random.integers(0, 255, (16, 16, 3), np.uint8)},
                        state=np.full(embodiment.state_dim, step, np.float32),
                        instruction=wording.format(colour),
                        stamp_ns=begin + step * embodiment.period_ns,
                    )
                    frame = Frame(observation, action, sources[letter])
                    recorder.add(replace(frame, label=action + np.float32(0.5)) if letter == "N" else frame)
                    step += 1
                recorder.commit(end_ns=begin + step * embodiment.period_ns)
        return path

    return make


@pytest.fixture
def small_static(tmp_path, monkeypatch):
    """``data=blockfind_static`` with few samples, in a working directory of its own."""
    from tandem_training import named_data

    splits = {"train": (48, 42), "validation": (24, 43), "test": (40, 44)}
    data = named_data.NamedData("blockfind_static", "blockfind_static", splits)
    monkeypatch.setattr(named_data, "named", lambda name: data)
    monkeypatch.chdir(tmp_path)
    return data
