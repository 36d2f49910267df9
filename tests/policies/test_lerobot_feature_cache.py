"""A frozen backbone computes the features of a picture once; whatever changes them has them computed again."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.misc import FrozenBatchNorm2d

from tandem_policies.lerobot.backbones import quicken
from tandem_policies.lerobot.feature_cache import FeatureCache, remember_features

ROW_BYTES = 512 * 4  # features of 32 x 32 pixels


class _Policy(nn.Module):
    """A frozen backbone and a layer that learns, as ACT has them (features by name) or Diffusion (a tensor)."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        if named:
            whole = resnet18(norm_layer=FrozenBatchNorm2d)
            self.backbone: nn.Module = IntermediateLayerGetter(whole, {"layer4": "feature_map"})
        else:
            whole = resnet18(norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels))
            self.backbone = nn.Sequential(*list(whole.children())[:-2])
        self.backbone.requires_grad_(False)
        self.head = nn.Conv2d(512, 4, 1)

    def features(self, pictures: Tensor) -> Tensor:
        found = self.backbone(pictures)
        return found if isinstance(found, Tensor) else found["feature_map"]

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def _cache(policy: _Policy) -> FeatureCache:
    assert isinstance(policy.backbone.forward, FeatureCache)
    return policy.backbone.forward


@pytest.mark.parametrize("named", [True, False])
def test_each_picture_is_computed_once_and_gradients_reach_what_learns(named, pictures):
    policy = _Policy(named)
    quicken(policy, quick=True)
    expected = policy.features(pictures)
    remember_features(policy)
    remember_features(policy)  # a second time changes nothing
    first = policy.features(pictures[:5])
    assert _cache(policy).n_computed == 5
    torch.testing.assert_close(first, expected[:5], rtol=1e-4, atol=1e-4)
    order = [6, 0, 0, 5, 6, 3]
    again = policy.features(pictures[order])
    assert _cache(policy).n_computed == 7  # rows 5 and 6 alone are new
    torch.testing.assert_close(again, expected[order], rtol=1e-4, atol=1e-4)
    assert torch.equal(again[1], first[0])
    policy(pictures).sum().backward()
    assert policy.head.weight.grad is not None
    assert policy.head.weight.grad.abs().sum() > 0


def test_a_row_has_the_same_features_whatever_is_missing_beside_it(pictures):
    """A resumed training, whose cache is empty, goes on just as if it had never stopped."""
    through, resumed = _Policy(False), _Policy(False)
    for policy in (through, resumed):
        remember_features(policy)
    for row in range(7):
        through.features(pictures[row : row + 1])
    assert torch.equal(through.features(pictures), resumed.features(pictures))


def test_what_changes_the_features_has_them_computed_again(pictures):
    policy = _Policy(False)
    remember_features(policy)
    cache = _cache(policy)
    before = policy.features(pictures)
    policy.load_state_dict({name: value * 1.5 for name, value in policy.state_dict().items()})
    after = policy.features(pictures)
    assert cache.n_computed == 14
    assert not torch.allclose(before, after)
    with torch.autocast("cpu", torch.bfloat16):
        assert policy.features(pictures).dtype == torch.bfloat16
        assert policy.features(pictures).dtype == torch.bfloat16  # kept as such
    assert torch.equal(policy.features(pictures), after)
    small = pictures[:, :, :16, :16]  # of another camera
    assert torch.equal(policy.features(small), policy.features(small))
    assert cache.n_computed == 28


def test_outside_of_training_and_while_it_learns_the_backbone_is_asked(pictures):
    policy = _Policy(False)
    expected = policy.features(pictures)
    remember_features(policy)
    quicken(policy, quick=False)
    assert torch.equal(policy.features(pictures), expected)
    quicken(policy, quick=True)
    policy.backbone.requires_grad_(True)
    assert policy.features(pictures).requires_grad
    assert _cache(policy).n_computed == 0


def test_memory_is_bounded():
    pictures = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    policy = _Policy(False)
    remember_features(policy, most_bytes=100 * ROW_BYTES)
    cache = _cache(policy)
    first = policy.features(pictures)
    assert cache.n_bytes == 64 * ROW_BYTES  # a block; a second one would be too much
    assert torch.equal(policy.features(pictures), first)
    assert cache.n_computed == 70 + 6


def test_a_backbone_that_learns_or_draws_at_random_is_left_alone(pictures):
    learning, random = _Policy(False), _Policy(False)
    learning.backbone.requires_grad_(True)
    random.backbone.append(nn.Dropout(0.5))
    for policy in (learning, random):
        remember_features(policy)
        assert not isinstance(policy.backbone.forward, FeatureCache)


def test_batch_norms_that_gather_statistics_are_no_fixed_features(pictures):
    backbone = nn.Sequential(*list(resnet18().children())[:-2]).requires_grad_(False)
    policy = nn.Sequential(backbone, nn.Conv2d(512, 4, 1))
    remember_features(policy)
    assert isinstance(backbone.forward, FeatureCache)
    for training, computed in ((True, 0), (False, 7), (True, 7)):
        backbone.train(training)
        policy(pictures)
        assert backbone.forward.n_computed == computed


def test_a_copy_has_a_memory_of_its_own(pictures):
    policy = _Policy(False)
    remember_features(policy)
    expected = policy.features(pictures)
    copied = copy.deepcopy(policy)
    assert torch.equal(copied.features(pictures), expected)
    assert _cache(copied).n_computed == 7
    assert list(copied.state_dict()) == list(policy.state_dict())
