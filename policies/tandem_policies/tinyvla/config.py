"""The configuration of TinyVLA. Its defaults are the size ``nano``."""

from dataclasses import dataclass

from tandem_policies.pretrained.settings import BackboneSettings
from tandem_policies.settings import choice, setting


@dataclass(frozen=True)
class TinyVLAConfig(BackboneSettings):
    """Parts, widths and depths of a TinyVLA; see :class:`PolicyConfig` for errors, its base for the backbones."""

    chunk_size: int = setting(4, 1, 1024)  # K, actions of one inference
    n_action_steps: int = setting(1, 1, 1024)  # how many of them are played before the next inference
    patch: int = setting(8, 2, 64)  # pixels; every image side is a multiple of it (a backbone brings its own)
    dim: int = setting(64, 8, 4096)  # width of patch, text and fused features
    heads: int = setting(4, 1, 64)  # heads of the self-attention over patches and over text
    mlp_ratio: float = setting(2.0, 0.5, 8.0)  # hidden width of a block's MLP, in dims
    vision_depth: int = setting(2, 0, 48)  # blocks over the patches; 0: the patch embedding alone
    vision_drop: float = setting(0.5, 0.0, 0.9)  # share of training samples that skip these blocks
    language_depth: int = setting(1, 1, 48)  # blocks over the text
    queries: int = setting(1, 1, 64)  # readout tokens that collect the instruction and look into the image
    fusion: str = choice("cross_attention", "gated", "tokens", "pooled")  # how text and image meet
    fusion_depth: int = setting(1, 1, 16)  # blocks of the fusion (pooled has none); the last one's attention is shown
    fusion_heads: int = setting(16, 1, 64)  # heads of the fusion; in cross_attention each is a position for the head
    fusion_dropout: float = setting(0.5, 0.0, 0.9)  # of cross_attention: share of training samples with positions alone
    tokenizer: str | None = None  # a Hugging Face name or a folder; null: the language backbone's, else the packaged
    tokenizer_pad: str | None = None  # token to pad with, for a tokenizer that names none
    vocab_size: int | None = setting(None, 258, 1_048_576)  # rows of the token embedding; null: the tokenizer's ids
    head: str = choice("continuous", "bins", "flow")  # how features become a chunk of actions
    head_dim: int = setting(128, 8, 16384)  # hidden width of the action head
    head_depth: int = setting(2, 1, 8)  # hidden layers of the action head
    bins: int = setting(64, 2, 1024)  # of head bins: values of each action scalar, from the data's least to greatest
    bin_decoding: str = choice("expectation", "argmax")  # of head bins: how a distribution becomes a number
    flow_steps: int = setting(10, 1, 100)  # of head flow: Euler steps from noise to chunk
    text_decoder: bool = False  # whether it learns to say what it does ("move left")
    text_weight: float = setting(0.1, 0.0, 10.0)  # of the text's loss beside the action's
    text_depth: int = setting(1, 1, 16)  # blocks of the text decoder
    state_depth: int = setting(0, 0, 8)  # hidden layers that read the state, as wide as the head's; 0: it is projected
    state_floor: float = setting(0.0, 0.0, 1.0)  # what varies by less than this share of its limits is not blown up
    state_noise: float = setting(0.05, 0.0, 1.0)  # added to the state in training, in standard deviations
    dropout: float = setting(0.0, 0.0, 0.9)  # inside the blocks and the heads
    loss_beta: float = setting(0.1, 0.0, 100.0)  # of head continuous: error below which the loss is quadratic; 0: L1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % (4 * self.heads):  # 2-D sines and cosines take quarters, attention takes heads
            self.refuse("dim", self.dim, f"a multiple of 4 * heads = {4 * self.heads}")
        if self.dim % self.fusion_heads:
            self.refuse("dim", self.dim, f"a multiple of fusion_heads = {self.fusion_heads}")
        if self.tokenizer_pad is not None and self.tokenizer is None and self.language_backbone is None:
            self.refuse("tokenizer_pad", self.tokenizer_pad, "null for the packaged tokenizer, which has its own")


Config = TinyVLAConfig
