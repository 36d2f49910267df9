"""Image backbones of LeRobot's policies made quick while training; predictions stay LeRobot's own, bit for bit.

Training is told by :func:`quicken`, not by ``training`` of the parts: what is frozen is in evaluation mode then, too.
"""

import torch
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from tandem_policies.lerobot.feature_cache import FeatureCache, sees_pictures


class _OneStepNorm(FrozenBatchNorm2d):
    """torchvision's computes in its buffers' float32 under autocast, in two passes over memory.

    On two CPU cores that was a third of a ResNet-18's time in bfloat16.
    """

    def forward(self, features: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        rows = [values.to(features.dtype).view(-1, 1, 1) for values in (shift, scale)]
        return torch.addcmul(rows[0], features, rows[1])


class _ChannelsLastConv(nn.Conv2d):
    """Reorders pictures in memory: the convolutions after it keep the order.

    On two CPU cores a ResNet-18 takes a quarter to a third less time so (bfloat16, 256 x 256 pixels).
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.contiguous(memory_format=torch.channels_last))


def quicken(policy: nn.Module, quick: bool) -> None:
    """Has the parts of ``policy`` that see pictures compute quickly, or as torchvision does, which rounds otherwise.

    Frozen batch norms do it in one step, convolutions with channels last in memory, and features of frozen backbones
    are kept, once :func:`remember_features` was called.
    """
    for part in policy.modules():
        if type(part) in (FrozenBatchNorm2d, _OneStepNorm):
            part.__class__ = _OneStepNorm if quick else FrozenBatchNorm2d
        elif type(part) in (nn.Conv2d, _ChannelsLastConv) and sees_pictures(part):
            part.__class__ = _ChannelsLastConv if quick else nn.Conv2d
        if isinstance(part.forward, FeatureCache):
            part.forward.active = quick
