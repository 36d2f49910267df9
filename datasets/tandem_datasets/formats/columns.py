"""Episodes by the column instead of by the frame: what formats with arrays read and write."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError
from tandem_datasets.frames import Frame, Observation, Source
from tandem_datasets.layout import streams
from tandem_datasets.store import Store

_BLOCK_BYTES = 16 << 20  # of decoded images held at once
_ABSENT: dict[str, Any] = {"reward": 0.0, "terminated": False, "truncated": False, "success": False}


def chosen(store: Store, episodes: Sequence[int] | None, where: str) -> list[int]:
    """The episodes to export: those asked for, else all that are not deleted.

    Raises:
        TandemError: one is not there or named twice, or there are none.
    """
    found = store.kept.tolist() if episodes is None else list(episodes)
    for episode in found:
        store.episode_slice(episode)
    if len(set(found)) != len(found):
        raise TandemError(f"{where}: episodes {found!s:.80} (allowed: each once)")
    if not found:
        raise TandemError(f"{where}: no episodes (allowed: at least one)")
    return found


def image_blocks(store: Store, camera: str, rows: slice) -> Iterator[np.ndarray]:
    """A camera's images of ``rows``, some at a time, (T, H, W, C) each."""
    shape = store.embodiment.camera(camera)
    size = int(np.prod(shape.shape)) * shape.dtype.itemsize
    step = max(1, _BLOCK_BYTES // size)
    for start in range(rows.start, rows.stop, step):
        yield store.load(camera, start, min(start + step, rows.stop))


def plain_columns(store: Store) -> list[str]:
    """The store's columns that are neither images, state, executed action nor codes of texts."""
    known = {camera.name for camera in store.embodiment.cameras} | {"state", "action", "instruction", "subgoal"}
    return [key for key in store.keys if key not in known]


def frames_of(
    embodiment: Embodiment,
    numbers: Mapping[str, np.ndarray],
    instructions: Sequence[str],
    images: Iterable[Mapping[str, np.ndarray]],
    where: str,
    source: Source = Source.PERSON,
) -> Iterator[Frame]:
    """Frames of one episode from its columns, which have the names that the store gives them.

    Args:
        embodiment: what the frames fit.
        numbers: ``stamp`` int64 (T,) in ns, ``state`` and ``action`` float32 (T, D), and whatever else there is:
            ``reward``, ``terminated``, ``truncated``, ``success``, ``source``, ``action_requested`` with
            ``has_requested``, ``action_label`` with ``has_label``, ``stamp_<stream>``.
        instructions: one per frame.
        images: one mapping per frame, read as frames are asked for.
        where: begins an error's line.
        source: who acted, where there is no column ``source``.

    Raises:
        TandemError: there are fewer images than frames, or ``source`` holds an unknown code.
    """
    count = len(instructions)
    empty = np.zeros((count, 0), np.float32)
    states, actions = numbers.get("state", empty), numbers.get("action", empty)
    lists = {key: values.tolist() for key, values in numbers.items() if values.ndim == 1}
    own = [stream for stream in streams(embodiment) if f"stamp_{stream}" in lists]
    codes = lists.get("source", [int(source)] * count)
    if not set(codes) <= set(map(int, Source)):
        raise TandemError(f"{where}: unknown codes in source (allowed: {', '.join(f'{s:d} {s.name}' for s in Source)})")
    pictures = iter(images)
    for t in range(count):
        shown = next(pictures, None)
        if shown is None:
            raise TandemError(f"{where}: {t} images for {count} frames")
        extras = {key: lists[key][t] if key in lists else absent for key, absent in _ABSENT.items()}
        yield Frame(
            Observation(
                images=shown,
                state=states[t],
                instruction=instructions[t],
                stamp_ns=lists["stamp"][t],
                stream_stamps_ns={stream: lists[f"stamp_{stream}"][t] for stream in own},
            ),
            action=actions[t],
            source=Source(codes[t]),
            requested=_optional(numbers, "action_requested", "has_requested", t),
            label=_optional(numbers, "action_label", "has_label", t),
            **extras,
        )


def no_images(count: int) -> Iterator[Mapping[str, np.ndarray]]:
    """For embodiments without cameras."""
    for _ in range(count):
        yield {}


def _optional(numbers: Mapping[str, np.ndarray], key: str, validity: str, t: int) -> np.ndarray | None:
    """A vector where the column beside it says that there is one; formats leave out those without numbers."""
    if validity not in numbers or not numbers[validity][t]:
        return None
    return numbers[key][t] if key in numbers else np.zeros(0, np.float32)
