"""The contract refuses contradictions, survives JSON, and says what does not fit."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, Encoding, StateScalar, StateSource
from tandem_datasets.errors import TandemError

_SMALL = Embodiment(
    "small",
    30.0,
    True,
    (Camera("top", 4, 4),),
    (StateScalar("x", "m", 0.0, 1.0, StateSource.JOINT_POSITION),),
    (ActionScalar("arm/dx", "m", -1.0, 1.0, ActionKind.DELTA_STEP),),
)


def test_survives_json(embodiment):
    again = Embodiment.from_dict(json.loads(json.dumps(embodiment.to_dict())))
    assert again == embodiment
    assert again.digest == embodiment.digest


def test_digest_sees_every_change(embodiment):
    others = [
        replace(embodiment, rate_hz=31.0),
        replace(embodiment, cameras=embodiment.cameras[::-1]),
        replace(embodiment, action=(replace(embodiment.action[0], high=2.5), embodiment.action[1])),
    ]
    assert len({embodiment.digest, *(other.digest for other in others)}) == 4


def test_derived_sizes_and_limits(embodiment):
    assert embodiment.period_ns == 33_333_333
    assert (embodiment.state_dim, embodiment.action_dim) == (3, 2)
    assert embodiment.action_low.dtype == np.float32
    assert embodiment.action_low.tolist() == [np.float32(-2.0), np.float32(-0.1)]
    assert embodiment.state_high.tolist() == [2.0, 9.0, 1.0]
    assert embodiment.camera("deep").shape == (4, 5, 1)
    assert embodiment.camera("deep").dtype == np.uint16
    assert set(embodiment.lerobot_features()) == {
        "observation.images.top",
        "observation.images.deep",
        "observation.state",
        "action",
    }


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: replace(_SMALL, action=(), cameras=()), "action is none"),
        (lambda: replace(_SMALL, cameras=(), state=()), "cameras and state"),
        (lambda: replace(_SMALL, rate_hz=0.0), "rate_hz"),
        (lambda: replace(_SMALL, cameras=_SMALL.cameras * 2), "top"),
        (lambda: replace(_SMALL, state=_SMALL.state * 2), "each name once"),
        (lambda: Camera("../top", 4, 4), "name"),
        (lambda: Camera("top", 0, 4), "height"),
        (lambda: Camera("top", 4, 4, rate_hz=float("nan")), "rate_hz"),
        (lambda: StateScalar("arm/x", "m", 0.0, 1.0, StateSource.JOINT_POSITION), "name"),
        (lambda: ActionScalar("x", "m", 1.0, 1.0, ActionKind.ABSOLUTE), "limits"),
        (lambda: _SMALL.camera("side"), "it has: top"),
    ],
)
def test_contradictions_are_refused(build, words):
    with pytest.raises(TandemError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_what_is_only_watched_has_no_action():
    """Videos: there is something to see and nothing to command, and whoever needs actions says so."""
    watched = replace(_SMALL, state=(), action=())
    assert (watched.action_dim, watched.action_low.shape) == (0, (0,))
    assert Embodiment.from_dict(watched.to_dict()) == watched
    assert "action" not in watched.lerobot_features()
    assert _SMALL.misfits(watched)
    with pytest.raises(TandemError, match="policy p: embodiment 'small' has no action"):
        watched.require_action("policy p")
    _SMALL.require_action("policy p")


def test_a_joint_may_have_position_and_velocity(embodiment):
    assert [scalar.name for scalar in embodiment.state[:2]] == ["elbow", "elbow"]


def test_misfits_name_each_feature(embodiment):
    smaller = replace(
        embodiment,
        rate_hz=10.0,
        hears_instruction=False,
        cameras=(replace(embodiment.cameras[0], width=9), replace(embodiment.cameras[1], name="other")),
        state=embodiment.state[:2],
        action=(replace(embodiment.action[0], kind=ActionKind.DELTA_OBSERVATION), embodiment.action[1]),
    )
    phrases = embodiment.misfits(smaller)
    for words in ("10 Hz", "instruction", "'top' 8x6 rgb8, not 9x6", "'deep' missing", "state (", "'elbow': kind"):
        assert any(words in phrase for phrase in phrases), words
    with pytest.raises(TandemError, match="policy p: made for 'rig'"):
        embodiment.require_fit(smaller, "policy p")
    assert embodiment.misfits(replace(embodiment, name="twin")) == []


def test_more_cameras_than_a_policy_wants_do_fit(embodiment):
    one = replace(embodiment, cameras=embodiment.cameras[:1])
    assert one.misfits(embodiment) == []
    assert embodiment.misfits(one) == ["camera 'deep' missing"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(junk=_JSON, pick=st.randoms(use_true_random=False))
def test_hostile_json_gives_one_line(junk, pick):
    """Bug: huge integers and a distortion that is no list ended in a traceback."""
    data = copy.deepcopy(_FULL)
    parent, key = pick.choice(list(_places(data)))
    parent[key] = junk
    message = ""
    try:
        Embodiment.from_dict(data, "here")
    except TandemError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


_FULL = _SMALL.to_dict()
_FULL["cameras"][0]["intrinsics"] = {"fx": 1.0, "fy": 1.0, "cx": 1.0, "cy": 1.0, "distortion": [0.0]}
_FULL["action"][0]["rate_limit"] = 1.0


def _places(value):
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def test_encodings_have_their_own_types():
    assert Encoding.RGB8.dtype == np.uint8
    assert (Encoding.SEGMENTATION.dtype, Encoding.SEGMENTATION.channels) == (np.dtype(np.uint16), 1)
