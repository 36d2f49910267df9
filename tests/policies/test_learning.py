"""TinyVLA learns in seconds to go where the instruction says, on boards that it has not seen."""

import numpy as np
import torch

from tandem_policies.network import create

COLOURS = {"red": (220, 40, 40), "blue": (40, 80, 220), "yellow": (240, 200, 30)}
CELLS = 4


def boards(count: int, seed: int):
    """Images (N, 32, 32, 3) with a cell of each colour, the agent's place (N, 2), a target place per colour."""
    rng = np.random.default_rng(seed)
    images = np.full((count, 32, 32, 3), 80, np.uint8)
    places = np.stack([rng.permutation(CELLS * CELLS)[: len(COLOURS)] for _ in range(count)])
    spots = np.stack([places % CELLS, places // CELLS], -1)
    for image, pair in zip(images, spots, strict=True):
        for (x, y), colour in zip(pair, COLOURS.values(), strict=True):
            image[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = colour
    targets = (spots * 0.5 - 0.75).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(rng.uniform(-1, 1, (count, 2)).astype(np.float32)), targets


def ask(network, images, state, colours):
    tokens = network.tokenize([f"find the {colour} block" for colour in colours])
    return {"images.top": images, "state": state, **tokens}


def test_the_named_block_is_found_on_new_boards(body, descend):
    torch.manual_seed(0)
    network = create("tinyvla", body(), chunk_size=1, dim=32, vision_depth=1)
    images, state, targets = boards(400, seed=1)
    named = np.random.default_rng(2).integers(0, len(COLOURS), 400)
    wanted = torch.from_numpy(targets[np.arange(400), named]) - state
    ones = np.ones(2, np.float32)
    plain = {"mean": 0 * ones, "std": ones, "min": -ones, "max": ones}
    network.set_statistics({"state": plain, "action": plain})

    def batch(step):
        rows = torch.arange(32 * step, 32 * step + 32) % 400
        asked = ask(network, images[rows], state[rows], [list(COLOURS)[named[row]] for row in rows])
        return asked | {"action": wanted[rows][:, None], "action_is_pad": torch.zeros(32, 1, dtype=torch.bool)}

    descend(network, batch, 150, rate=2e-3, inertia=0.9)
    network.eval()
    images, state, targets = boards(100, seed=9)
    for index, colour in enumerate(COLOURS):
        with torch.no_grad():
            batch = ask(network, images, state, [colour] * 100)
            chunk, look = network.predict(batch)[:, 0], network.attention(batch).flatten(1)
        truth = torch.from_numpy(targets[:, index]) - state
        assert (torch.cosine_similarity(chunk, truth) > 0.8).float().mean() > 0.9
        cells = torch.from_numpy(((targets[:, index] + 0.75) * 2).round().astype(np.int64))
        assert (look.argmax(1) == cells[:, 1] * CELLS + cells[:, 0]).float().mean() > 0.9
