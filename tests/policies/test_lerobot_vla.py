"""LeRobot's vision-language-action models, random and tiny: their backbones come from local folders made here."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_policies import hub
from tandem_policies.files import save
from tandem_policies.network import create

BODY = Embodiment(
    name="tester",
    rate_hz=10.0,
    hears_instruction=True,
    cameras=(Camera("top", 48, 64),),
    state=(StateScalar("elbow", "rad", -1.0, 1.0, StateSource.JOINT_POSITION),),
    action=tuple(ActionScalar(f"agent/a{i}", "m", -1.0, 1.0, ActionKind.DELTA_STEP) for i in range(2)),
)


def bytes_tokenizer(special: list[str]) -> Any:
    """A byte-level BPE without merges, of the ``tokenizers`` library."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def make_smolvlm(folder: Path) -> dict[str, Any]:
    """SmolVLA's backbone: a config and a processor; its weights are not asked for."""
    from transformers import (
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokens = bytes_tokenizer(["<|pad|>", *named.values()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<|pad|>", extra_special_tokens=named)
    side = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}
    SmolVLMProcessor(SmolVLMImageProcessor(**side), tokenizer, SmolVLMVideoProcessor(**side)).save_pretrained(folder)
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 64, "patch_size": 16}  # fmt: skip
    text = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320}  # fmt: skip
    SmolVLMConfig(
        image_token_id=1, pad_token_id=0, scale_factor=2, vision_config=vision, text_config=text
    ).save_pretrained(folder)
    options = {"vlm_model_name": str(folder), "num_vlm_layers": 2, "num_steps": 2, "max_state_dim": 4,
               "max_action_dim": 4, "resize_imgs_with_padding": [64, 64], "expert_width_multiplier": 0.5}  # fmt: skip
    return {"policy": "smolvla", "chunk_size": 4, "options": options}


def make_clip(folder: Path) -> dict[str, Any]:
    """Multi-task DiT's backbones, with weights: it always reads them by name."""
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    tokens = bytes_tokenizer(["<|startoftext|>", "<|endoftext|>"])
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokens, **ends).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 258, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {**sizes, "image_size": 64, "patch_size": 16}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    options = {"vision_encoder_name": str(folder), "text_encoder_name": str(folder), "image_crop_shape": None,
               "image_resize_shape": [64, 64], "n_obs_steps": 2, "hidden_dim": 32, "num_layers": 1, "num_heads": 2,
               "timestep_embed_dim": 16, "noise_scheduler_type": "DDIM", "num_inference_steps": 2}  # fmt: skip
    return {"policy": "multi_task_dit", "chunk_size": 7, "options": options}


def make_qwen(folder: Path) -> dict[str, Any]:
    """EO-1's backbone, with weights: a fresh one is always begun from some."""
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
    )
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    named = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    }
    tokens = bytes_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="<|endoftext|>", eos_token="<|im_end|>", extra_special_tokens=named
    )
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
        "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    )
    patches = {"patch_size": 8, "merge_size": 2}
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**patches), tokenizer, Qwen2VLVideoProcessor(**patches), chat_template=template
    ).save_pretrained(folder)
    text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 288, "max_position_embeddings": 512, "pad_token_id": 0,
            "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}}  # fmt: skip
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
              "out_hidden_size": 64, "window_size": 32, "fullatt_block_indexes": [0]}  # fmt: skip
    ids = {f"{name}_token_id": tokens.token_to_id(f"<|{name}_pad|>") for name in ("image", "video")}
    ids |= {f"vision_{end}_token_id": tokens.token_to_id(f"<|vision_{end}|>") for end in ("start", "end")}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    options = {"vlm_base": str(folder), "dtype": "float32", "image_min_pixels": 1024, "image_max_pixels": 4096,
               "num_denoise_steps": 2, "max_state_dim": 4, "max_action_dim": 4}  # fmt: skip
    return {"policy": "eo1", "chunk_size": 4, "options": options}


@pytest.mark.parametrize(
    "make",
    [make_smolvlm, pytest.param(make_clip, marks=pytest.mark.slow), pytest.param(make_qwen, marks=pytest.mark.slow)],
    ids=["smolvla", "multi_task_dit", "eo1"],
)
def test_it_trains_hears_repeats_and_comes_back_equal(make, batch_of, train_on, chunks_of, tmp_path):
    from tandem_policies.lerobot.files import open_policy

    torch.manual_seed(0)
    network = create("lerobot", BODY, **make(tmp_path / "clip-or-other"))
    batch = batch_of(network, texts=("find the red block", "go", "größe"))
    with pytest.warns(UserWarning, match="are pretrained; expect") if make is make_smolvlm else nullcontext():
        network.start(batch)
    train_on(network, batch, range(3), rate=1e-2)  # some layers begin at zero, and what is behind them moves later
    moved = [value for value in network.parameters() if value.grad is not None and value.grad.abs().max() > 0]
    assert len(moved) > 10
    network.requires_grad_(False)
    chunks = chunks_of(network, batch, noisy=True)
    spoken = batch | network.tokenize(("find the blue block", "stay", "x"))
    assert not torch.equal(chunks_of(network, spoken, noisy=True), chunks), "the instruction changes nothing"
    assert torch.equal(chunks_of(open_policy(save(network, tmp_path / "policy")), batch, noisy=True), chunks)


def test_a_model_by_name_that_is_not_here_is_one_line(monkeypatch, tmp_path):
    """Regression: without a network transformers asks again and again, for 20 s and more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(hub, "getproxies", dict)
    options = {"vlm_model_name": "somebody/no-such-model", "load_vlm_weights": False}
    for _ in range(2):  # what it imports takes its time once
        begin = time.monotonic()
        with pytest.raises(
            TandemError, match=r"cannot be fetched: vlm_model_name=somebody/no-such-model .*a local folder"
        ) as caught:
            create("lerobot", BODY, policy="smolvla", chunk_size=4, options=options)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < 10
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
