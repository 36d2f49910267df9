"""The drill's recorder: records episodes that can be told again from their number, and never gives one up."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tandem_datasets.embodiment import ActionKind, ActionScalar, Camera, Embodiment, Encoding, StateScalar, StateSource
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import EpisodeInfo, Frame, Observation, Source
from tandem_datasets.recorder import Recorder
from tandem_datasets.store import Store

RIG = Embodiment(
    "rig",
    50.0,
    True,
    (Camera("top", 6, 8), Camera("deep", 4, 4, Encoding.DEPTH)),
    (StateScalar("x", "m", 0.0, 1.0, StateSource.JOINT_POSITION),),
    (ActionScalar("x", "m", -1.0, 1.0, ActionKind.ABSOLUTE),),
)
CODEC = "raw"
WRONG = ("unopened", "lost", "altered", "stuck")
Tell = Callable[[int], None]
_TRIES = 4  # a fault strikes once
_LONG = 300  # frames of every seventh episode: it reaches the disk while it is open


@cache
def columns_of(episode: int) -> dict[str, Any]:
    """Frames column by column: the same for the same number, and of a length that moves over the bounds of shards."""
    rng = np.random.default_rng(episode)
    count = _LONG if episode % 7 == 1 else 1 + episode * 37 % 101
    images = {c.name: rng.integers(0, 255, (count, *c.shape), np.uint8).astype(c.dtype) for c in RIG.cameras}
    state, action = rng.random((2, count, 1), np.float32)
    stamps = np.arange(count) * RIG.period_ns
    return {**images, "state": state, "action": action, "reward": rng.random(count), "stamp": stamps}


def frames_of(episode: int) -> list[Frame]:
    """The frames of an episode as they are recorded."""
    columns = columns_of(episode)
    return [
        Frame(
            Observation(
                {camera.name: columns[camera.name][t] for camera in RIG.cameras},
                columns["state"][t],
                f"wording {episode % 5}",
                int(columns["stamp"][t]),
            ),
            columns["action"][t],
            Source.EXPERT,
            reward=float(columns["reward"][t]),
        )
        for t in range(len(columns["stamp"]))
    ]


def info_of(episode: int) -> EpisodeInfo:
    """Facts that differ from episode to episode."""
    failed = episode % 3 == 0
    return EpisodeInfo(
        seed=episode,
        instruction=f"wording {episode % 5}",
        env="drill",
        outcome="dropped" if failed else "success",
        success=not failed,
        failure_reason=f"slipped {episode}" if failed else "",
        provenance={"episode": episode},
    )


@cache
def expected(episode: int) -> str:
    """The :func:`digest` of an episode that is right."""
    columns = columns_of(episode)
    return digest(columns, [f"wording {episode % 5}"] * len(columns["stamp"]), info_of(episode))


def stored(store: Store, episode: int) -> str:
    """The :func:`digest` of an episode as it is in a store; TandemError if it is damaged."""
    store.verify(episode)
    rows = store.episode_slice(episode)
    columns = {key: store.load(key, rows.start, rows.stop) for key in columns_of(0)}
    wordings = [store.instructions[code] for code in store.load("instruction", rows.start, rows.stop).tolist()]
    return digest(columns, wordings, store.info(episode))


def digest(columns: dict[str, Any], wordings: list[str], info: EpisodeInfo) -> str:
    """A hash of everything that an episode was recorded with, but its uuid and the mark of deletion."""
    parts = hashlib.sha256()
    for key in columns_of(0):
        parts.update(columns[key].tobytes())
    facts = (info.seed, info.instruction, info.env, info.outcome, info.success, info.failure_reason, info.provenance)
    parts.update(repr((wordings, facts)).encode())
    return parts.hexdigest()


def record(path: Path, episodes: int | None, tell: Tell, *, group: int, sync: bool, codec: str = CODEC) -> None:
    """Opens a store and appends episodes until it has so many (None: for ever); ``tell`` hears how many are committed.

    What fails is tried again as the errors say, so that in the end nothing is missing; TandemError if it does not end.
    """
    recorder = again(lambda: Recorder(path, RIG, codec=codec, fsync=sync, group=group))
    opened = recorder.n_episodes
    tell(opened)
    while episodes is None or recorder.n_episodes < episodes:
        _record_one(recorder, recorder.n_episodes)
        if (recorder.n_episodes - opened) % group == 0:
            tell(recorder.n_episodes)
    again(recorder.flush)
    again(lambda: recorder.mark_deleted(range(0, recorder.n_episodes, 4)))
    recorder.close()
    tell(recorder.n_episodes)


def _record_one(recorder: Recorder, episode: int) -> None:
    """Appends an episode, from the begin again if the recorder says that it lost it."""
    for _ in range(_TRIES):
        again(lambda: recorder.begin(info_of(episode)))
        for frame in frames_of(episode):
            try:
                again(lambda frame=frame: recorder.add(frame))  # type: ignore[misc]
            except TandemError:
                break
        if recorder.n_open_frames:
            try:
                again(recorder.commit)
            except TandemError:
                if recorder.n_open_frames:
                    raise
        if recorder.n_episodes > episode:
            return
    raise TandemError(f"episode {episode} cannot be recorded")


def again[T](attempt: Callable[[], T]) -> T:
    """What it returns; a failed attempt is repeated a few times."""
    for _ in range(_TRIES - 1):
        try:
            return attempt()
        except TandemError:
            pass
    return attempt()


def check(
    path: Path, committed: int, *, append: bool = True, codec: str = CODEC, numbers: Sequence[int] | None = None
) -> tuple[dict[str, int], str]:
    """What is wrong with a store of which ``committed`` episodes were reported: counts by kind, and the first error.

    Kinds: ``unopened``, ``lost``, ``altered``, ``stuck`` (nothing can be appended); ``checked`` counts what is right.
    ``numbers`` tells which episodes they should be, if not the first ones in order.
    """
    found = dict.fromkeys(("checked", *WRONG), 0)
    if not (path / "zarr.json").exists() and committed == 0:  # killed while it was made: a recorder makes it anew
        return _append(path, found, "", codec) if append else (found, "")
    try:
        store = Store(path)
    except TandemError as error:
        return {**found, "unopened": 1, "lost": committed}, str(error)
    found["lost"] = max(0, committed - store.n_episodes)
    first = f"{found['lost']} episodes are missing" if found["lost"] else ""
    wanted = range(store.n_episodes) if numbers is None else numbers
    if store.n_episodes > len(wanted):
        found["altered"], first = 1, first or f"{store.n_episodes} episodes instead of {len(wanted)}"
    for episode, number in zip(range(store.n_episodes), wanted, strict=False):
        try:
            same = stored(store, episode) == expected(number)
        except TandemError as error:
            same, first = False, first or str(error)
        found["checked" if same else "altered"] += 1
        first = first or ("" if same else f"episode {episode} is another")
    return _append(path, found, first, codec) if append else (found, first)


def _append(path: Path, found: dict[str, int], first: str, codec: str) -> tuple[dict[str, int], str]:
    """Whether one more episode goes in and comes out."""
    try:
        with Recorder(path, RIG, codec=codec, fsync=False) as recorder:
            episode = recorder.n_episodes
            recorder.write_episode(info_of(episode), frames_of(episode))
        if stored(Store(path), episode) == expected(episode):
            return found, first
        error = "what was appended afterwards is another"
    except TandemError as failed:
        error = str(failed)
    return {**found, "stuck": 1}, first or error
