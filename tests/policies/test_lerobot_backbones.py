"""Backbones are quick while training and LeRobot's own otherwise, with the same numbers but for rounding."""

import torch
from torchvision.models import resnet18
from torchvision.ops.misc import FrozenBatchNorm2d

from tandem_policies.lerobot.backbones import quicken


def test_quick_norms_compute_what_torchvisions_do():
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d(5)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 2.0)
    features = torch.randn(2, 5, 3, 4, requires_grad=True)
    expected = norm(features)
    (slope,) = torch.autograd.grad(expected.sum(), features)
    quicken(norm, quick=True)
    found = norm(features)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), features)[0], slope)
    half = norm(features.bfloat16())
    assert half.dtype == torch.bfloat16  # torchvision's would be float32, twice the memory traffic
    torch.testing.assert_close(half.float(), expected, rtol=0.03, atol=0.03)
    quicken(norm, quick=False)
    assert torch.equal(norm(features), expected)


def test_only_frozen_norms_are_touched_and_nothing_is_saved_otherwise():
    frozen, free = resnet18(norm_layer=FrozenBatchNorm2d), resnet18()
    names, kinds = list(frozen.state_dict()), [type(part) for part in free.layer1.modules()]
    quicken(frozen, quick=True)
    quicken(free, quick=True)
    assert list(frozen.state_dict()) == names
    assert FrozenBatchNorm2d not in {type(part) for part in frozen.modules()}
    assert [type(part) for part in free.layer1.modules()] == kinds


def test_pictures_are_reordered_while_training_only():
    torch.manual_seed(0)
    backbone = resnet18(norm_layer=FrozenBatchNorm2d)
    pictures = torch.randn(2, 3, 32, 32)
    expected = backbone(pictures)
    orders = []
    backbone.layer1.register_forward_hook(
        lambda part, inputs, output: orders.append(output.is_contiguous(memory_format=torch.channels_last))
    )
    backbone.eval()  # as an engine has what it freezes
    quicken(backbone, quick=True)
    torch.testing.assert_close(backbone(pictures), expected, rtol=1e-3, atol=1e-3)
    quicken(backbone, quick=False)
    assert torch.equal(backbone(pictures), expected)
    assert orders == [True, False]
