"""Pretrained towers compute what their models do, of every architecture, and come back equal."""

import json
from collections.abc import Callable, Iterable

import pytest
import torch
import transformers

from tandem_datasets.embodiment import Camera, Encoding
from tandem_policies.files import outlined
from tandem_policies.network import create
from tandem_policies.pretrained.architectures import LANGUAGE, VISION
from tandem_policies.pretrained.language import LanguageTower, language_tower
from tandem_policies.pretrained.settings import LANGUAGE_ASSET, VISION_ASSET
from tandem_policies.pretrained.vision import VisionTower, vision_tower

TWO = (Camera("top", 32, 32), Camera("wrist", 32, 32))
COUSINS = {"deit", "distilbert", "gemma2", "mistral", "modernbert", "phi3", "qwen3", "smollm3", "xlm-roberta"}


def in_turn(names: Iterable[str]) -> list:
    """Models that are built and read just as another one wait for the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow if name in COUSINS else ()) for name in names]


def facts(tower: torch.nn.Module) -> dict[str, tuple]:
    return {name: (value.shape, value.dtype) for name, value in tower.state_dict().items()}


@pytest.mark.parametrize("name", in_turn(VISION))
def test_every_vision_model_gives_patches_and_comes_back_equal(tiny, body, name, pictures, sees):
    settings = sees(tiny(name), "full")
    tower = vision_tower(settings, body(cameras=TWO), None)
    assert tower.grids == [(4, 4), (4, 4)]
    tower.train()(pictures()).square().sum().backward()
    assert [key for key, value in tower.named_parameters() if value.grad is None] == []
    wanted = tower.eval()(pictures())
    assert (wanted.shape, wanted.dtype) == ((2, 32, tower.width), torch.float32)
    one = vision_tower(settings, body(cameras=TWO[:1]), None).eval()
    torch.testing.assert_close(one(pictures()[:1]), wanted[:, :16])
    again_equal(tower, lambda assets: vision_tower(settings, body(cameras=TWO), assets), VISION_ASSET, pictures())


@pytest.mark.parametrize("name", in_turn(LANGUAGE))
def test_every_language_model_reads_past_padding_and_comes_back_equal(tiny, name, words, reads):
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
    again_equal(tower, lambda assets: language_tower(settings, assets), LANGUAGE_ASSET, tokens, mask)


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


def test_a_decoder_reads_forwards_and_an_encoder_both_ways(tiny, words, reads):
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


def test_what_a_whole_checkpoint_holds_is_found(tmp_path, body, pictures, words, sees, reads, seeing, reading):
    models = {
        "siglip": transformers.SiglipModel(
            transformers.SiglipConfig(text_config={**reading, "projection_size": 32}, vision_config=seeing)
        ),
        "clip": transformers.CLIPModel(transformers.CLIPConfig(text_config=reading, vision_config=seeing)),
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
    parts = {"text_config": reading, "vision_config": seeing, "mm_tokens_per_image": 4}
    gemma = transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(**parts))
    gemma.save_pretrained(tmp_path / "gemma3")
    backbone = language_tower(reads(tmp_path / "gemma3"), None).backbone
    assert torch.equal(backbone.embed_tokens.weight, gemma.model.language_model.embed_tokens.weight)


def test_pixels_are_normalised_as_the_preprocessor_says(tiny, body, tmp_path, copied, sees):
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


def test_images_are_scaled_to_what_the_backbone_takes(tiny, body, pictures, sees):
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


def test_cameras_that_do_not_fit_are_named(tiny, body, sees, refused):
    odd = body(cameras=(Camera("top", 30, 40),))
    refused(r"'top' gives 40x30 \(allowed: 32x32; or vision_resize", lambda: vision_tower(sees(tiny("vit")), odd, None))
    dino = sees(tiny("dinov2"))
    refused("'top' gives 40x30 .allowed: multiples of 8x8, such as 40x32; or", lambda: vision_tower(dino, odd, None))
    depth = body(cameras=(Camera("top", 32, 32, Encoding.DEPTH),))
    refused("'top' is depth", lambda: vision_tower(dino, depth, None))
    refused("no camera", lambda: vision_tower(dino, body(cameras=()), None))


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
def test_large_backbones_are_outlined_with_their_published_sizes(body, tmp_path, model, sees, reads):
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
