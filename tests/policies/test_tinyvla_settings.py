"""What TinyVLA's parts and settings are for: each is missed where it is taken away."""

import pytest
import torch
from torch.nn import functional as F

from tandem_policies.attention import SelfAttention
from tandem_policies.network import create
from tandem_policies.tinyvla.fusion import FUSIONS
from tandem_policies.tinyvla.language import Text

SMALL = {"dim": 32, "heads": 2, "fusion_heads": 4, "vision_depth": 1, "head_dim": 32, "chunk_size": 3}
STEADY = {"vision_drop": 0.0, "fusion_dropout": 0.0, "state_noise": 0.0}


def made(body, **changes):
    """The same weights for the same shapes."""
    torch.manual_seed(0)
    return create("tinyvla", body(), **{**SMALL, **STEADY, **changes})


@pytest.mark.parametrize("setting", ["vision_drop", "fusion_dropout", "state_noise", "dropout"])
def test_what_is_random_in_training_is_so_there_alone(body, batch_of, setting):
    for size in (0.0, 0.5):
        network = made(body, **{setting: size})
        batch = batch_of(network, size=8)
        for mode in (True, False):
            torch.manual_seed(1)
            losses = {network.train(mode).loss(batch)[0].item() for _ in range(3)}
            assert (len(losses) > 1) == (mode and size > 0)


def test_attention_drops_weights_in_training():
    attention, tokens = SelfAttention(8, 2, dropout=0.5), torch.randn(1, 6, 8)
    assert not torch.equal(attention(tokens), attention(tokens))
    assert torch.equal(attention.eval()(tokens), attention(tokens))


def test_the_order_of_words_is_heard(body):
    network = made(body).eval()
    one, other = network.encode_language(network.tokenize(["red on blue", "blue on red"]))
    assert (one - other).abs().max() > 1e-3


def test_patches_know_where_they_are(body, batch_of):
    """Without places the blocks would give moved patches the tokens that they had, only elsewhere."""
    network = made(body).eval()
    image = batch_of(network)["images.top"]
    moved = network.vision([image.roll(network.config.patch, dims=2)])
    rows, columns = network.vision.grids[0]
    followed = network.vision([image]).unflatten(1, (rows, columns)).roll(1, dims=2).flatten(1, 2)
    assert (moved - followed).abs().max() > 1e-3


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_tells_where_something_is(body, batch_of, fusion):
    """The vision alone, without blocks, has the same tokens in another order."""
    network = made(body, fusion=fusion, vision_depth=0).eval()
    if fusion == "gated":
        torch.nn.init.ones_(network.fusion.blocks[0].gates)
    batch = batch_of(network)
    moved = {"images.top": batch["images.top"].roll(network.config.patch, dims=2)}
    assert ((network.predict({**batch, **moved}) - network.predict(batch)).abs().amax((1, 2)) > 1e-5).all()


def test_tokens_look_at_readouts_and_at_words(body):
    fusion = made(body, fusion="tokens", fusion_depth=2).eval().fusion
    text = Text(torch.randn(1, 1, 32), torch.randn(1, 4, 32), torch.ones(1, 4, dtype=torch.bool))
    patches = torch.randn(1, 16, 32)
    before, _ = fusion(text, patches)
    for change in ({"readouts": -text.readouts}, {"words": -text.words}):
        assert (fusion(text._replace(**change), patches)[0] - before).abs().max() > 1e-3
    hidden = text._replace(mask=torch.zeros(1, 4, dtype=torch.bool))
    assert torch.equal(fusion(hidden, patches)[0], fusion(hidden._replace(words=-text.words), patches)[0])


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_small_errors_count_squared_and_large_ones_by_their_size(body, batch_of, beta):
    """Statistics are still those of the standard normal distribution: units are normalised values."""
    network = made(body, loss_beta=beta).eval()
    batch = batch_of(network)
    wanted = F.smooth_l1_loss(network.predict(batch), batch["action"], beta=beta)
    torch.testing.assert_close(network.loss(batch)[0], wanted)


def test_a_flow_learns_at_noisy_times_and_takes_its_steps(body, batch_of):
    """Times are Beta(1.5, 1): below 1/2 in 0.354 of all draws; were they flipped, in 0.646."""
    network = made(body, head="flow", flow_steps=3)
    _, times = network.head._draws(torch.zeros(4000, 3, 2))
    assert float((times < 0.5).float().mean()) == pytest.approx(0.354, abs=0.03)
    calls = []
    network.head.outward.register_forward_hook(lambda *_: calls.append(1))
    network.eval().predict(batch_of(network), [(0, 0)] * 3)
    assert len(calls) == 3
