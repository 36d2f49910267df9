"""policies/README.md: its table of fields is the config's, its example policy works as it stands there."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import tandem_policies
from tandem_policies import registry
from tandem_policies.files import save
from tandem_policies.network import create
from tandem_policies.tinyvla.config import TinyVLAConfig
from tandem_training.config import group_options

ROOT = Path(__file__).parents[2]
README = (ROOT / "policies" / "README.md").read_text()


def shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_the_table_of_fields_is_the_configs():
    section = README.split("## Every field")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.+) \|$", section, re.MULTILINE)
    fields = {field.name: shown(field.default) for field in dataclasses.fields(TinyVLAConfig)}
    assert {name: default for name, default, _ in rows} == fields
    assert len(rows) == len(fields)


def test_every_choice_and_every_size_is_described():
    for field in dataclasses.fields(TinyVLAConfig):
        for option in field.metadata.get("choices", ()):
            assert f"`{option}`" in README, f"{field.name}={option}"
    for size in group_options("policy"):
        assert not size.startswith("tinyvla/") or f"`{size}`" in README


def test_links_point_at_something():
    assert all((ROOT / "policies" / link).exists() for link in re.findall(r"\]\((?!http)([^)#]+)\)", README))


@pytest.fixture
def glance(tmp_path, monkeypatch) -> dict[str, object]:
    """The README's policy in a folder of its own, as if it stood in the package; the values of its yaml."""
    files = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", README, re.DOTALL))
    assert len(files) == 3
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    packages = tmp_path / "policies" / "tandem_policies"
    monkeypatch.setattr(registry, "_ROOT", packages)
    monkeypatch.setattr(tandem_policies, "__path__", [*tandem_policies.__path__, str(packages)])
    conf = Path("training/tandem_training/conf/policy")
    text = (tmp_path / conf / "glance" / "small.yaml").read_text()
    assert text.splitlines()[0] == (ROOT / conf / "tinyvla" / "nano.yaml").read_text().splitlines()[0]
    return yaml.safe_load(text)


def test_the_example_policy_learns_is_saved_and_acts(glance, body, batch_of, observation, statistics_of, tmp_path):
    torch.manual_seed(0)
    network = create(embodiment=body(), **glance)
    assert network.config.to_dict() == {key: value for key, value in glance.items() if key != "type"}
    network.set_statistics(statistics_of(network.embodiment))
    batch = batch_of(network, size=16)
    losses = []
    for _ in range(20):
        loss = network.loss(batch)[0]
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for value, gradient in zip(network.parameters(), gradients, strict=True):
                value.sub_(gradient, alpha=0.05)
    assert losses[-1] < 0.8 * losses[0]
    wanted = network.eval().predict({key: value[:1] for key, value in batch.items()})
    policy = tandem_policies.load(save(network, tmp_path / "policy"), "cpu")
    assert torch.equal(policy.network.predict({key: value[:1] for key, value in batch.items()}), wanted)
    seen = [observation(policy.embodiment, 1, text) for text in ("find the red block", "stop")]
    chunks = policy.infer([[one] for one in seen], [(0, 0), (0, 1)])
    assert (chunks.shape, chunks.dtype) == ((2, 1, 2), np.float32)
    assert not np.array_equal(chunks[0], chunks[1])
