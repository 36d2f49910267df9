"""The configuration of TinyVLA. Its defaults are the size ``nano``."""

from dataclasses import dataclass

from tandem_policies.settings import PolicyConfig, setting


@dataclass(frozen=True)
class TinyVLAConfig(PolicyConfig):
    """Widths, depths and the head of a TinyVLA; see :class:`PolicyConfig` for errors."""

    chunk_size: int = setting(4, 1, 1024)
    n_action_steps: int = setting(1, 1, 1024)
    patch: int = setting(8, 2, 64)  # pixels; every image side is a multiple of it
    dim: int = setting(64, 8, 4096)  # width of patch, text and fused features
    heads: int = setting(4, 1, 64)  # heads of the self-attention over patches and over text
    mlp_ratio: float = setting(2.0, 0.5, 8.0)  # hidden width of a block's MLP, in dims
    vision_depth: int = setting(2, 0, 48)  # blocks over the patches; 0: the patch embedding alone
    vision_drop: float = setting(0.5, 0.0, 0.9)  # share of training samples that skip these blocks
    language_depth: int = setting(1, 1, 48)  # blocks over the text
    queries: int = setting(1, 1, 64)  # readout tokens that collect the instruction and look into the image
    fusion_depth: int = setting(1, 1, 16)  # cross-attention blocks; the last one's attention gives the position
    fusion_heads: int = setting(16, 1, 64)  # heads of the cross-attention; each is a position for the head
    fusion_dropout: float = setting(0.5, 0.0, 0.9)  # share of training samples without fused features, positions alone
    vocab_size: int = setting(512, 258, 262144)  # rows of the token embedding; at least the tokenizer's ids
    head_dim: int = setting(128, 8, 16384)  # hidden width of the action head
    head_depth: int = setting(2, 1, 8)  # hidden layers of the action head
    state_noise: float = setting(0.05, 0.0, 1.0)  # added to the state in training, in standard deviations
    dropout: float = setting(0.0, 0.0, 0.9)
    loss_beta: float = setting(0.1, 0.0, 100.0)  # normalised error below which the loss is quadratic; 0: L1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % (4 * self.heads):  # 2-D sines and cosines take quarters, attention takes heads
            self.refuse("dim", self.dim, f"a multiple of 4 * heads = {4 * self.heads}")
        if self.dim % self.fusion_heads:
            self.refuse("dim", self.dim, f"a multiple of fusion_heads = {self.fusion_heads}")


Config = TinyVLAConfig
