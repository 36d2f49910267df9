"""What every network shares: statistics, the factory, and that every policy type runs once."""

import numpy as np
import pytest
import torch

from tandem_datasets.errors import TandemError
from tandem_policies.network import create, masked_mean
from tandem_policies.registry import config_class, network_class, policy_types


@pytest.mark.parametrize("name", [name for name in policy_types() if name != "lerobot"])  # test_lerobot_in.py has it
def test_every_policy_type_predicts_and_has_a_loss(body, batch_of, name):
    network = create(name, body())
    batch = batch_of(network)
    assert torch.isfinite(network.loss(batch)[0])
    assert network.eval().predict(batch, [(0, 0)] * 3).shape == (3, network.chunk_size, 2)
    assert network.policy_type == name
    assert isinstance(network.config, config_class(name))


def test_an_unknown_type_names_the_nearest():
    with pytest.raises(TandemError, match="unknown name 'tinyvia'; did you mean 'tinyvla'"):
        network_class("tinyvia")
    with pytest.raises(TandemError, match=r"unknown name '\.\./tinyvla'"):
        network_class("../tinyvla")


def test_units_go_in_and_come_out_through_the_statistics(body, batch_of, statistics_of):
    network = create("tinyvla", body()).eval()
    batch = batch_of(network)
    plain = network.predict(batch)
    statistics = statistics_of(network.embodiment)
    network.set_statistics(statistics)
    state = batch["state"] * torch.from_numpy(statistics["state"]["std"]) + torch.from_numpy(
        statistics["state"]["mean"]
    )
    wanted = plain * torch.from_numpy(statistics["action"]["std"]) + torch.from_numpy(statistics["action"]["mean"])
    torch.testing.assert_close(network.predict({**batch, "state": state}), wanted, rtol=0, atol=1e-5)


def test_an_action_scalar_that_never_varied_stays_what_it_was(body, statistics_of):
    network = create("tinyvla", body())
    statistics = statistics_of(network.embodiment)
    statistics["action"]["std"] = np.array([0.0, 2.0], np.float32)
    network.set_statistics(statistics)
    assert network.action_std.tolist() == pytest.approx([1e-6, 2.0])
    network.action_mean.copy_(torch.tensor([0.25, 0.0]))
    assert network.in_units("action", torch.tensor([3.0, 1.0])).tolist() == pytest.approx([0.25, 2.0], abs=1e-5)


@pytest.mark.parametrize(
    ("key", "quantity", "value", "message"),
    [
        ("state", "mean", None, "state.mean is missing"),
        ("action", "std", np.ones(3), "action.std is .*2 finite numbers"),
        ("action", "min", np.array([0, np.nan]), "action.min is .*2 finite numbers"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(body, statistics_of, key, quantity, value, message):
    network = create("tinyvla", body())
    statistics = statistics_of(network.embodiment)
    del statistics[key][quantity]
    if value is not None:
        statistics[key][quantity] = value
    with pytest.raises(TandemError, match=message):
        network.set_statistics(statistics)


def test_masked_mean_is_over_real_actions():
    errors = torch.tensor([[[1.0, 3.0], [9.0, 9.0]], [[4.0, 4.0], [6.0, 6.0]]])
    pad = torch.tensor([[False, True], [False, False]])
    assert masked_mean(errors, pad).item() == pytest.approx(4.0)
