"""Tiny random models of the real classes, saved as transformers saves them, and how tests name them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import TandemError
from tandem_policies.pretrained.architectures import LANGUAGE, VISION
from tandem_policies.pretrained.settings import BackboneSettings
from tandem_policies.tokenizer import PACKAGED

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SEEING = {**SMALL, "image_size": 32, "patch_size": 8}
READING = {
    **SMALL, "vocab_size": 600, "max_position_embeddings": 64, "head_dim": 8, "num_key_value_heads": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
T5 = {"vocab_size": 600, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
TWO = (Camera("top", 32, 32), Camera("wrist", 32, 32))
Tiny = Callable[..., Path]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """The folder of a small random model, made once: ``tiny("vit")``; other classes of the same config by name."""
    made: dict[tuple, Path] = {}

    def make(name: str, kind: str = "", **changes: object) -> Path:
        key = (name, kind, *changes.items())
        if key not in made:
            architecture = {**VISION, **LANGUAGE}[name]
            sizes = T5 if name == "t5" else SEEING if name in VISION else READING
            config = getattr(transformers, architecture.config)(**{**sizes, **changes})
            torch.manual_seed(len(made))
            made[key] = tmp_path_factory.mktemp("model")
            getattr(transformers, kind or architecture.model)(config).save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture
def seeing() -> dict[str, int]:
    """Sizes of a small vision model."""
    return {**SEEING}


@pytest.fixture
def reading() -> dict[str, int]:
    """Sizes of a small language model."""
    return {**READING}


@pytest.fixture(scope="session")
def reader(tiny) -> Path:
    """A small Phi with a tokenizer beside it."""
    folder = tiny("phi", "PhiForCausalLM")
    PreTrainedTokenizerFast(tokenizer_file=str(PACKAGED), pad_token="<pad>").save_pretrained(folder)
    return folder


def _copied(folder: Path, target: Path, **changes: object) -> Path:
    """A copy whose ``config.json`` has other values."""
    shutil.copytree(folder, target)
    config = target / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return target


@pytest.fixture
def copied():
    return _copied


def _pictures(size: int = 2, cameras: tuple[Camera, ...] = TWO) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(0, 256, (size, *camera.shape), dtype=torch.uint8) for camera in cameras]


@pytest.fixture
def pictures():
    return _pictures


def _words() -> tuple[Tensor, Tensor]:
    """Three texts of 6, 4 and 0 tokens, padded on the right."""
    torch.manual_seed(1)
    mask = torch.arange(6) < torch.tensor([[6], [4], [0]])
    return torch.randint(3, 600, (3, 6)) * mask, mask


@pytest.fixture
def words():
    return _words


def _sees(folder: Path | str, tuning: str = "frozen", **more: object) -> BackboneSettings:
    return BackboneSettings(vision_backbone=str(folder), vision_tuning=tuning, **more)  # type: ignore[arg-type]


@pytest.fixture
def sees():
    return _sees


def _reads(folder: Path | str, tuning: str = "frozen", **more: object) -> BackboneSettings:
    return BackboneSettings(language_backbone=str(folder), language_tuning=tuning, **more)  # type: ignore[arg-type]


@pytest.fixture
def reads():
    return _reads


def _refused(message: str, build: Callable[[], object]) -> None:
    with pytest.raises(TandemError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.fixture
def refused():
    return _refused
