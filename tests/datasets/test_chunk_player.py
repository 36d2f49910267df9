"""Every observation is answered exactly once, and a chunk is played as far as asked."""

import numpy as np

from tandem_datasets.frames import Observation
from tandem_datasets.policy import ChunkPlayer


def _chunk(first: int, size: int = 4) -> np.ndarray:
    return np.arange(first, first + size, dtype=np.float32)[:, None]


def test_plays_n_action_steps_of_each_chunk():
    player = ChunkPlayer(3)
    player.reset(7)
    played = []
    for step in range(7):
        if player.wants_inference:
            player.accept(_chunk(10 * step))
        played.append(player.answer()[0, 0])
    assert played == [0, 1, 2, 30, 31, 32, 60]


def test_answer_holds_what_is_left():
    player = ChunkPlayer(3)
    player.accept(_chunk(0))
    assert player.answer()[:, 0].tolist() == [0, 1, 2]
    assert player.answer()[:, 0].tolist() == [1, 2]
    assert player.answer()[:, 0].tolist() == [2]
    assert player.wants_inference


def test_history_begins_with_the_first_observation_and_keeps_the_newest():
    player = ChunkPlayer(1, n_obs_steps=3)
    for episode in range(2):
        player.reset(episode)
        seen = []
        for step in range(4):
            player.observe(Observation({}, np.array([step], np.float32), "", step))
            seen.append([observation.stamp_ns for observation in player.history])
        assert seen == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_keys_count_inferences_and_reset_starts_anew():
    player = ChunkPlayer(1)
    player.reset(5)
    assert player.noise_key == (5, 0)
    player.accept(_chunk(0))
    assert player.noise_key == (5, 1)
    player.reset(6)
    assert player.noise_key == (6, 0)
    assert player.wants_inference
