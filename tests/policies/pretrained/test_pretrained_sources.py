"""Where pretrained backbones come from: folders, the hub's cache, a saved policy; and what is refused there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tandem_datasets.errors import TandemError
from tandem_policies import hub
from tandem_policies.files import load_network, outline_network, save
from tandem_policies.network import create
from tandem_policies.pretrained import sources
from tandem_policies.pretrained.language import language_tower
from tandem_policies.pretrained.vision import vision_tower


def test_names_come_from_the_hubs_cache_without_network(tiny, body, tmp_path, monkeypatch, pictures, sees):
    cache = tmp_path / "models--tiny--vit"
    shutil.copytree(tiny("vit"), cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tower = vision_tower(sees("tiny/vit"), body(), None)
    assert torch.equal(tower(pictures()[:1]), vision_tower(sees(tiny("vit")), body(), None)(pictures()[:1]))
    with pytest.raises(TandemError, match=r"vision_backbone 'tiny/dino': not in the cache.*local folder"):
        vision_tower(sees("tiny/dino"), body(), None)


def test_what_an_interrupted_download_left_is_not_taken_for_the_whole(tmp_path, monkeypatch, refused):
    """Regression: an index without its shards, or weights without a config, counted as cached for good."""
    cached = tmp_path / "models--big--model" / "snapshots" / ("0" * 40)
    cached.mkdir(parents=True)
    (cached.parents[1] / "refs").mkdir()
    (cached.parents[1] / "refs" / "main").write_text("0" * 40)
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (cached / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("config.json", *shards):
        refused(f"only in part in the cache, without {name}, and HF_HUB", lambda: sources.find("big/model", "backbone"))
        refused(f"no {name}", lambda: sources.find(str(cached), "backbone"))
        (cached / name).write_text("{}")
    assert sources.find("big/model", "backbone") == cached

    (cached / shards[1]).unlink()
    looked, asked = hub._snapshot, []

    def arrives(name: str, patterns: list[str], where: str, *, fetch: bool) -> Path | None:
        if fetch:
            asked.append(name)
            (cached / shards[1]).write_text("{}")
        return looked(name, patterns, where, fetch=False)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "_reachable", lambda: True)
    monkeypatch.setattr(hub, "_snapshot", arrives)
    assert sources.find("big/model", "backbone") == cached
    assert sources.find("big/model", "backbone") == cached
    assert asked == ["big/model"]


def test_folders_that_hold_no_fitting_model_are_refused(tiny, body, tmp_path, copied, sees, reads, refused):
    def phi(name: str, **changes: object) -> Path:
        return copied(tiny("phi"), tmp_path / name, **changes)

    refused("unknown name 'dinov2'.*allowed: bert, .*phi", lambda: language_tower(reads(tiny("dinov2")), None))
    refused("unknown name 'phi'.*allowed: clip, .*vit", lambda: vision_tower(sees(tiny("phi")), body(), None))
    refused("'./nowhere/at/all': no such folder", lambda: language_tower(reads("./nowhere/at/all"), None))
    pickled = phi("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    refused(r"no model.safetensors .*pickles such as pytorch_model.bin", lambda: language_tower(reads(pickled), None))
    foreign = phi("foreign")
    shutil.copy(tiny("vit") / "model.safetensors", foreign)
    refused("of another architecture: no 'embed_tokens.weight'", lambda: language_tower(reads(foreign), None))
    damaged = phi("damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    refused("cannot build this model", lambda: language_tower(reads(damaged), None))
    other = phi("other", hidden_size=64)
    refused(r"'embed_tokens.weight' is \[600, 32\].*wants \[600, 64\]", lambda: language_tower(reads(other), None))
    deep = phi("deep", num_hidden_layers=10**9)
    refused("num_hidden_layers is 1000000000", lambda: language_tower(reads(deep), None))
    wrong = phi("wrong", hidden_size="wide")
    refused("cannot build this model.*hidden_size", lambda: language_tower(reads(wrong), None))
    small = phi("quantised", quantization_config={"load_in_8bit": True})
    refused("quantised", lambda: language_tower(reads(small), None))
    adapter = phi("adapter")
    (adapter / "adapter_config.json").write_text("{}")
    refused("adapter for another model", lambda: language_tower(reads(adapter), None))
    (adapter / "adapter_config.json").unlink()
    (adapter / "config.json").write_text("{")
    refused("not JSON", lambda: language_tower(reads(adapter), None))


def test_a_stored_policys_description_is_not_trusted(tiny, reader, body, tmp_path, refused):
    options = {"vision_backbone": str(tiny("vit")), "vision_tuning": "lora", "dim": 32}
    saved = save(create("tinyvla", body(), **options), tmp_path / "policy")
    assert outline_network(saved).config.vision_tuning == "lora"
    asset = saved / "vision_backbone.json"
    good = json.loads(asset.read_text())
    for change, message in (
        ({"architecture": "os.system"}, "unknown name 'os.system'"),
        ({"format": 7}, "no backbone's description"),
        ({"adapted": ["a.b"]}, "adapters are wanted at 'a.b'"),
        ({"adapted": []}, "adapters at 0 layers contradict the tuning 'lora'"),
        ({"config": {**good["config"], "num_hidden_layers": 10**9}}, "num_hidden_layers is 1000000000"),
        ({"config": {**good["config"], "hidden_size": 64}}, "contradict|wanted: F32"),
        ({"config": {**good["config"], "hidden_act": "nothing"}}, "cannot build this model"),
        ({"image_std": [1, 2]}, "image_std is"),
    ):
        asset.write_text(json.dumps({**good, **change}))
        refused(message, lambda: load_network(saved))
    asset.write_text("[" * 10**5)
    refused("not JSON", lambda: load_network(saved))
    asset.write_text(json.dumps(good))
    weights = load_file(saved / "model.safetensors")
    name = next(key for key in weights if "lora_A" in key)
    save_file({**weights, name: weights[name].to(torch.bfloat16)}, saved / "model.safetensors")
    refused("lora_A.* is BF16 .*wanted: F32", lambda: load_network(saved))
    with pytest.raises(TandemError, match="hears no instruction"):
        create("tinyvla", body(hears=False), language_backbone=str(reader))
