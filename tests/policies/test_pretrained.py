"""Pretrained backbones: tiny random models of the real classes, saved as transformers saves them, named by folder."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tandem_datasets.embodiment import Camera, Encoding
from tandem_datasets.errors import TandemError
from tandem_policies import hub
from tandem_policies.files import load_network, outline_network, outlined, save
from tandem_policies.network import PolicyNetwork, create
from tandem_policies.pretrained import language, sources, vision
from tandem_policies.pretrained.architectures import LANGUAGE, VISION
from tandem_policies.pretrained.language import LanguageTower, language_tower
from tandem_policies.pretrained.settings import BackboneSettings
from tandem_policies.pretrained.vision import VisionTower, vision_tower
from tandem_policies.tokenizer import PACKAGED

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SEES = {"image_size": 32, "patch_size": 8}
READS = {
    "vocab_size": 600, "max_position_embeddings": 64, "head_dim": 8, "num_key_value_heads": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
T5 = {"vocab_size": 600, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
TWO = (Camera("top", 32, 32), Camera("wrist", 32, 32))
COUSINS = {"deit", "distilbert", "gemma2", "mistral", "modernbert", "phi3", "qwen3", "smollm3", "xlm-roberta"}
Tiny = Callable[..., Path]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Tiny:
    """The folder of a small random model, made once: ``tiny("vit")``; other classes of the same config by name."""
    made: dict[tuple, Path] = {}

    def make(name: str, kind: str = "", **changes: object) -> Path:
        key = (name, kind, *changes.items())
        if key not in made:
            architecture = {**VISION, **LANGUAGE}[name]
            sizes = T5 if name == "t5" else {**SMALL, **(SEES if name in VISION else READS)}
            config = getattr(transformers, architecture.config)(**{**sizes, **changes})
            torch.manual_seed(len(made))
            made[key] = tmp_path_factory.mktemp("model")
            getattr(transformers, kind or architecture.model)(config).save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="module")
def reader(tiny) -> Path:
    """A small Phi with a tokenizer beside it."""
    folder = tiny("phi", "PhiForCausalLM")
    PreTrainedTokenizerFast(tokenizer_file=str(PACKAGED), pad_token="<pad>").save_pretrained(folder)
    return folder


def copied(folder: Path, target: Path, **changes: object) -> Path:
    """A copy whose ``config.json`` has other values."""
    shutil.copytree(folder, target)
    config = target / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return target


def pictures(size: int = 2, cameras: tuple[Camera, ...] = TWO) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(0, 256, (size, *camera.shape), dtype=torch.uint8) for camera in cameras]


def words() -> tuple[Tensor, Tensor]:
    """Three texts of 6, 4 and 0 tokens, padded on the right."""
    torch.manual_seed(1)
    mask = torch.arange(6) < torch.tensor([[6], [4], [0]])
    return torch.randint(3, 600, (3, 6)) * mask, mask


def sees(folder: Path | str, tuning: str = "frozen", **more: object) -> BackboneSettings:
    return BackboneSettings(vision_backbone=str(folder), vision_tuning=tuning, **more)  # type: ignore[arg-type]


def reads(folder: Path | str, tuning: str = "frozen", **more: object) -> BackboneSettings:
    return BackboneSettings(language_backbone=str(folder), language_tuning=tuning, **more)  # type: ignore[arg-type]


def facts(tower: torch.nn.Module) -> dict[str, tuple]:
    return {name: (value.shape, value.dtype) for name, value in tower.state_dict().items()}


def in_turn(names: Iterable[str]) -> list:
    """Models that are built and read just as another one wait for the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow if name in COUSINS else ()) for name in names]


@pytest.mark.parametrize("name", in_turn(VISION))
def test_every_vision_model_gives_patches_and_comes_back_equal(tiny, body, name):
    settings = sees(tiny(name), "full")
    tower = vision_tower(settings, body(cameras=TWO), None)
    assert tower.grids == [(4, 4), (4, 4)]
    tower.train()(pictures()).square().sum().backward()
    assert [key for key, value in tower.named_parameters() if value.grad is None] == []
    wanted = tower.eval()(pictures())
    assert (wanted.shape, wanted.dtype) == ((2, 32, tower.width), torch.float32)
    one = vision_tower(settings, body(cameras=TWO[:1]), None).eval()
    torch.testing.assert_close(one(pictures()[:1]), wanted[:, :16])
    again_equal(tower, lambda assets: vision_tower(settings, body(cameras=TWO), assets), vision.ASSET, pictures())


@pytest.mark.parametrize("name", in_turn(LANGUAGE))
def test_every_language_model_reads_past_padding_and_comes_back_equal(tiny, name):
    settings = reads(tiny(name), "full")
    tower = language_tower(settings, None)
    tokens, mask = words()
    tower.train()(tokens, mask).square().sum().backward()
    assert [key for key, value in tower.named_parameters() if value.grad is None] == []
    states = tower.eval()(tokens, mask)
    assert (states.shape, states.dtype) == ((3, 6, tower.width), torch.float32)
    assert states.isfinite().all()
    assert not states[~mask].any()
    assert states[mask].any(1).all()
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(tower(tokens[1:2, :4], mask[1:2, :4])[0], states[1, :4], **close)
    left = tower(tokens[1:2].roll(2, 1), mask[1:2].roll(2, 1))
    torch.testing.assert_close(left[0, 2:], states[1, :4], **close)
    again_equal(tower, lambda assets: language_tower(settings, assets), language.ASSET, tokens, mask)


def again_equal(tower: VisionTower | LanguageTower, build: Callable, asset: str, *inputs: object) -> None:
    assets = {asset: tower.asset()}
    with outlined():
        outline = build(assets)
    assert {value.device.type for value in outline.parameters()} == {"meta"}
    assert facts(outline) == facts(tower)
    again = build(assets)
    again.load_state_dict(tower.state_dict())
    assert torch.equal(again.eval()(*inputs), tower.eval()(*inputs))
    assert again.asset() == tower.asset()


def test_a_decoder_reads_forwards_and_an_encoder_both_ways(tiny):
    tokens, mask = words()
    other = tokens.clone()
    other[0, 5] = (other[0, 5] + 7) % 500 + 3
    for name, ahead in (("qwen2", False), ("bert", True)):
        tower = language_tower(reads(tiny(name)), None).eval()
        assert torch.equal(tower(tokens, mask)[0, :5], tower(other, mask)[0, :5]) != ahead


@pytest.mark.parametrize(("name", "own", "longest"), [("bert", {}, 12), ("roberta", {"pad_token_id": 1}, 10)])
def test_a_text_is_cut_where_the_backbone_knows_no_further_position(tiny, reader, body, batch_of, name, own, longest):
    """Regression: longer texts than its table of positions ended in an IndexError."""
    folder = tiny(name, max_position_embeddings=12, **own)
    network = create("tinyvla", body(), language_backbone=str(folder), tokenizer=str(reader), dim=32)
    assert (network.language.tower.longest, network.longest_text) == (longest, longest)
    batch = batch_of(network) | network.tokenize(["find the red block " * 9] * 3)
    assert batch["tokens"].shape == (3, longest)
    assert network.predict(batch).isfinite().all()


def test_what_a_whole_checkpoint_holds_is_found(tmp_path, body):
    texts = {**SMALL, **READS}
    models = {
        "siglip": transformers.SiglipModel(
            transformers.SiglipConfig(text_config={**texts, "projection_size": 32}, vision_config={**SMALL, **SEES})
        ),
        "clip": transformers.CLIPModel(transformers.CLIPConfig(text_config=texts, vision_config={**SMALL, **SEES})),
    }
    images, (tokens, mask) = pictures(cameras=TWO[:1]), words()
    for name, model in models.items():
        model.eval().save_pretrained(tmp_path / name)
        seen = vision_tower(sees(tmp_path / name), body(cameras=TWO[:1]), None)
        read = language_tower(reads(tmp_path / name), None)
        pixels = seen._pixels(images[0], (32, 32))
        theirs = model.vision_model(pixel_values=pixels).last_hidden_state[:, -16:]
        torch.testing.assert_close(seen(images), theirs, rtol=0, atol=1e-5)
        theirs = model.text_model(input_ids=tokens[:1]).last_hidden_state
        torch.testing.assert_close(read(tokens[:1], mask[:1]), theirs, rtol=0, atol=1e-5)
    parts = {"text_config": texts, "vision_config": {**SMALL, **SEES}, "mm_tokens_per_image": 4}
    gemma = transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(**parts))
    gemma.save_pretrained(tmp_path / "gemma3")
    backbone = language_tower(reads(tmp_path / "gemma3"), None).backbone
    assert torch.equal(backbone.embed_tokens.weight, gemma.model.language_model.embed_tokens.weight)


def test_pixels_are_normalised_as_the_preprocessor_says(tiny, body, tmp_path):
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[..., 0] = 255
    expected = {"vit": [1.0, -1.0, -1.0], "dinov2": [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]}
    folders = {name: tiny(name) for name in expected}
    folders["own"] = copied(tiny("vit"), tmp_path / "own")
    values = {"do_normalize": True, "image_mean": [0.5, 0.25, 0.0], "image_std": [0.25, 0.5, 1.0]}
    (folders["own"] / "preprocessor_config.json").write_text(json.dumps(values))
    expected["own"] = [2.0, -0.5, 0.0]
    for name, colours in expected.items():
        tower = vision_tower(sees(folders[name]), body(cameras=TWO[:1]), None)
        assert json.loads(tower.asset())["image_mean"] == list(tower.plan.image_mean)
        torch.testing.assert_close(tower._pixels(image, (32, 32))[0, :, 3, 4], torch.tensor(colours))


def test_images_are_scaled_to_what_the_backbone_takes(tiny, body):
    cameras = (Camera("wide", 24, 60), Camera("top", 32, 32))
    fixed = vision_tower(sees(tiny("vit"), vision_resize=True), body(cameras=cameras), None)
    assert (fixed.sizes, fixed.grids) == ([(32, 32)] * 2, [(4, 4)] * 2)
    free = vision_tower(sees(tiny("dinov2"), vision_resize=True), body(cameras=cameras), None)
    assert (free.sizes, free.grids) == ([(24, 64), (32, 32)], [(3, 8), (4, 4)])
    for tower in (fixed, free):
        images = pictures(cameras=cameras)
        tokens = tower(images)
        assert tokens.shape[1] == sum(rows * columns for rows, columns in tower.grids)
        images[0] = 255 - images[0]
        first = tower.grids[0][0] * tower.grids[0][1]
        changed = (tower(images) != tokens).any(2).any(0)
        assert (bool(changed[:first].all()), bool(changed[first:].any())) == (True, False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_backbones_stand_still_and_adapters_learn(tiny, reader, body, batch_of, statistics_of, tmp_path, dtype):
    torch.manual_seed(0)
    seer = tiny("siglip_vision_model", attention_dropout=0.5)  # in training mode it would be random
    options = {"backbone_dtype": dtype, "lora_rank": 2, "lora_targets": "q_proj,v_proj"}
    network = create(
        "tinyvla", body(), dim=32, vision_drop=0.0, fusion_dropout=0.0, state_noise=0.0,
        vision_backbone=str(seer), language_backbone=str(reader), language_tuning="lora", **options,
    )  # fmt: skip
    network.set_statistics(statistics_of(network.embodiment))
    network.start(batch_of(network))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = train(network, batch_of(network, size=8))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == trained
    adapters = {name for name in trained if ".backbone." in name}
    assert len(adapters) == 2 * 2 * 2  # A and B, of two layers, in two blocks
    assert all(name.startswith("language.") and "lora_" in name for name in adapters)
    kinds = {value.dtype for name, value in network.named_parameters() if ".backbone." in name}
    assert kinds == {torch.float32, getattr(torch, dtype)}

    again = load_network(save(network.eval(), tmp_path / "policy"))
    batch = batch_of(network)
    assert torch.equal(again.predict(batch), network.predict(batch))
    assert again.attention(batch).shape == (3, 4, 4)
    assert {name for name, value in again.named_parameters() if value.requires_grad} == trained
    assert train(again, batch_of(network, size=8)) == trained


def train(network: PolicyNetwork, batch: dict[str, Tensor]) -> set[str]:
    """A few steps on one batch; the names of what is trained."""
    chosen = {name: value for name, value in network.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(chosen.values(), lr=3e-3)
    losses = []
    network.train()
    for _ in range(4):
        loss, _ = network.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    return set(chosen)


def test_full_tuning_trains_all_of_a_backbone_with_or_without_kept_activations(tiny, body, batch_of):
    network = create("tinyvla", body(), dim=32, vision_backbone=str(tiny("dinov2")), vision_tuning="full")
    batch = batch_of(network)
    plain = gradients(network, batch)
    assert sum(".backbone." in name for name in plain) == len(list(network.vision.tower.backbone.parameters()))
    network.gradient_checkpointing_enable()
    for name, gradient in gradients(network, batch).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-6)


def gradients(network: PolicyNetwork, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network.train().zero_grad()
    network.loss(batch)[0].backward()
    assert all(value.grad is not None for value in network.parameters())
    return {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}


def test_a_frozen_backbone_keeps_nothing_for_gradients(tiny, body):
    tower = vision_tower(sees(tiny("vit", hidden_dropout_prob=0.5)), body(cameras=TWO), None).train()
    tokens = tower(pictures())
    assert not tokens.requires_grad
    assert torch.equal(tower(pictures()), tokens)
    assert {module.training for module in tower.backbone.modules()} == {False}


def test_fresh_adapters_change_nothing_yet(tiny):
    tokens, mask = words()
    plain = language_tower(reads(tiny("llama")), None).eval()
    adapted = language_tower(reads(tiny("llama"), "lora", lora_targets=r"layers\.1\.(self_attn|mlp)"), None).eval()
    assert torch.equal(plain(tokens, mask), adapted(tokens, mask))
    layers = {name.rpartition(".lora_")[0] for name, value in adapted.named_parameters() if value.requires_grad}
    assert len(layers) == 7
    assert all(name.startswith("backbone.layers.1.") for name in layers)


# Published sizes (model cards and config.json on the hub); counts are those of the parts that are read: without
# SigLIP's pooling head (7,087,104), DINOv2's mask token (768), BERT's pooler (590,592), Phi's output (131,123,200).
PUBLISHED = {
    "siglip-base-patch16-224": ("siglip_vision_model", 92_884_224 - 7_087_104, {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 16}),
    "dinov2-base": ("dinov2", 86_580_480 - 768, {
        "hidden_size": 768, "mlp_ratio": 4, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 518,
        "patch_size": 14}),
    "vit-base-patch16-224": ("vit", 85_798_656, {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 16}),
    "phi-2": ("phi", 2_779_683_840 - 131_123_200, {
        "vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
        "num_attention_heads": 32}),
    "gemma-2b": ("gemma", 2_506_172_416, {
        "vocab_size": 256000, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256}),
    "Qwen2-0.5B": ("qwen2", 494_032_768, {
        "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2}),
    "SmolLM2-135M": ("llama", 134_515_008, {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3}),
    "bert-base-uncased": ("bert", 109_482_240 - 590_592, {
        "vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12}),
}  # fmt: skip


@pytest.mark.parametrize("model", PUBLISHED)
def test_large_backbones_are_outlined_with_their_published_sizes(body, tmp_path, model):
    name, count, sizes = PUBLISHED[model]
    getattr(transformers, {**VISION, **LANGUAGE}[name].config)(**sizes).save_pretrained(tmp_path)
    with outlined():
        tower = (
            vision_tower(sees(tmp_path, vision_resize=True), body(), None)
            if name in VISION
            else language_tower(reads(tmp_path), None)
        )
    assert sum(value.numel() for value in tower.parameters()) == count
    assert {value.device.type for value in tower.parameters()} == {"meta"}


def test_names_come_from_the_hubs_cache_without_network(tiny, body, tmp_path, monkeypatch):
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


def test_what_an_interrupted_download_left_is_not_taken_for_the_whole(tmp_path, monkeypatch):
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


def refused(message: str, build: Callable[[], object]) -> None:
    with pytest.raises(TandemError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_cameras_that_do_not_fit_are_named(tiny, body):
    odd = body(cameras=(Camera("top", 30, 40),))
    refused(r"'top' gives 40x30 \(allowed: 32x32; or vision_resize", lambda: vision_tower(sees(tiny("vit")), odd, None))
    dino = sees(tiny("dinov2"))
    refused("'top' gives 40x30 .allowed: multiples of 8x8, such as 40x32; or", lambda: vision_tower(dino, odd, None))
    depth = body(cameras=(Camera("top", 32, 32, Encoding.DEPTH),))
    refused("'top' is depth", lambda: vision_tower(dino, depth, None))
    refused("no camera", lambda: vision_tower(dino, body(cameras=()), None))


def test_folders_that_hold_no_fitting_model_are_refused(tiny, body, tmp_path):
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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"language_tuning": "lora"}, "language_tuning is 'lora' .allowed: only with a language_backbone"),
        ({"vision_tuning": "loar"}, "vision_tuning is 'loar' .allowed: frozen, lora, full"),
        ({"vision_backbone": " "}, "vision_backbone is ' '"),
        ({"vision_backbone": "x", "vision_tuning": "full", "backbone_dtype": "bfloat16"}, "allowed: float32 with"),
        ({"backbone_dtype": "float8"}, "float32 or bfloat16"),
        ({"lora_targets": "q_proj("}, "a regular expression"),
        ({"lora_rank": 0}, "lora_rank is 0"),
    ],
)
def test_settings_that_contradict_are_refused(values, message):
    refused(message, lambda: BackboneSettings(**values))


@pytest.mark.parametrize("targets", ["keys?_proj", "k_proj, nothing"])
def test_lora_patterns_match_or_say_what_there_is(tiny, targets):
    settings = reads(tiny("phi"), "lora", lora_targets=targets)
    if "," in targets:
        assert len(language_tower(settings, None).plan.adapted) == 2
    else:
        refused(r"match no linear layer .there are 12, such as layers\.0\.", lambda: language_tower(settings, None))


def test_a_stored_policys_description_is_not_trusted(tiny, reader, body, tmp_path):
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
