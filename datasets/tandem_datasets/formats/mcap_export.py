"""A store as a recording of the contract's topics; see :mod:`.mcap`."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tandem_datasets.embodiment import Camera
from tandem_datasets.errors import unknown
from tandem_datasets.formats.bag_facts import METADATA, OFFSET, RUNNING, facts_of
from tandem_datasets.formats.columns import chosen
from tandem_datasets.formats.importing import require_vacant, write_beside
from tandem_datasets.formats.mcap_journal import COMPRESSIONS, McapJournal
from tandem_datasets.formats.ros_messages import Messages, image_topic, ros_name, topic_types
from tandem_datasets.frames import Frame
from tandem_datasets.progress import Progress
from tandem_datasets.store import Store
from tandem_datasets.wire import StepOutcome
from tandem_datasets.workers import each_in_order

_BETWEEN_NS = 1_000_000_000  # from one moved episode to the next


class _Item(NamedTuple):
    """A message on its way from the process that reads to the one that writes."""

    topic: str
    log_ns: int
    publish_ns: int
    data: bytes


def export_recording(
    store: Store,
    target: Path,
    episodes: Sequence[int] | None,
    workers: int,
    progress: Progress,
    compression: str,
    namespace: str,
) -> Path:
    """See :func:`.mcap.export`."""
    where = f"export {store.path}"
    if compression not in COMPRESSIONS:
        raise unknown(f"{where}: compression", compression[:40], COMPRESSIONS)
    require_vacant(target, where)
    listed = chosen(store, episodes, where)
    offsets = _offsets(store, listed)
    prefix = f"/{namespace.strip('/')}/" if namespace.strip("/") else "/"

    def fill(beside: Path) -> None:
        is_file = target.suffix == ".mcap"
        file = beside if is_file else beside / f"{target.name}_0.mcap"
        file.parent.mkdir(exist_ok=True)
        metadata = {METADATA: {"embodiment": json.dumps(store.embodiment.to_dict())}}
        with McapJournal(file, compression=compression, flush_s=float("inf"), metadata=metadata) as journal:
            types = {prefix + topic: kind for topic, kind in topic_types(store.embodiment).items()}
            for topic, kind in types.items():
                journal.add_topic(topic, kind)
            read = partial(_items, store, prefix)
            with closing(each_in_order(read, list(zip(listed, offsets, strict=True)), workers, where)) as each:
                for done, items in enumerate(each, 1):
                    for item in items:
                        journal.write(item.topic, types[item.topic], item.data, item.log_ns, item.publish_ns)
                    progress(done, len(listed), "episodes")
        if not is_file:
            _write_metadata(beside, file.name, journal)

    return write_beside(target, fill, where)


def _offsets(store: Store, episodes: Sequence[int]) -> list[int]:
    """By how much each episode's log times are moved on, so that none overlap and none is negative."""
    free, offsets = 0, []
    for episode in episodes:
        rows = store.episode_slice(episode)
        keys = [key for key in store.keys if key == "stamp" or key.startswith("stamp_")]
        first = min(int(store.load(key, rows.start, rows.stop).min()) for key in keys)
        info = store.info(episode)
        offset = max(free - min(first, info.begin_ns), 0)
        offsets.append(offset)
        free = info.end_ns + offset + _BETWEEN_NS
    return offsets


def _items(store: Store, prefix: str, job: tuple[int, int]) -> Iterator[_Item]:
    """All messages of an episode in the order of their log times."""
    episode, offset = job
    messages, info = Messages(store.embodiment), store.info(episode)
    facts: dict[str, object] = {**facts_of(info), OFFSET: offset}
    begin, end = info.begin_ns, info.end_ns

    def item(topic: str, stamp_ns: int, data: bytes, own_ns: int | None = None) -> _Item:
        sent = stamp_ns if own_ns is None else own_ns
        return _Item(prefix + topic, stamp_ns + offset, sent + offset, data)

    known = {key: facts[key] for key in ("uuid", "seed", "instruction", "env", "begin_ns", OFFSET)}
    yield item("episode", begin, messages.episode(RUNNING, known, begin))
    told: str | None = None
    shown: dict[str, tuple[int, np.ndarray]] = {}
    frames = store.frames(episode)
    for frame in frames:
        seen, tick = frame.observation, frame.observation.stamp_ns
        if seen.instruction != told:
            told = seen.instruction
            yield item("instruction", tick, messages.instruction(told))
        own = min(seen.stream_stamp_ns("state"), tick)
        yield item("state", tick, messages.state(seen.state, tick, seen.instruction), own)
        if messages.layout.joints:
            yield item("joint_states", tick, messages.joint_states(seen.state, own), own)
        for camera in store.embodiment.cameras:
            pixels, own = seen.images[camera.name], seen.stream_stamp_ns(camera.name)
            if not _shown(shown, camera, own, pixels):
                yield item(image_topic(camera.name), tick, messages.image(camera, pixels, own), own)
                info_topic = f"camera/{camera.name}/camera_info"
                yield item(info_topic, tick, messages.camera_info(camera, own), own)
        for topic, data in _done(messages, frame):
            yield item(topic, tick, data)
    facts["frames"] = len(frames)
    yield item("episode", end, messages.episode(info.outcome or "unknown", facts, end))


def _shown(shown: dict[str, tuple[int, np.ndarray]], camera: Camera, stamp_ns: int, pixels: np.ndarray) -> bool:
    """Whether this very picture is the camera's last one: slower cameras are seen several times."""
    last = shown.get(camera.name)
    shown[camera.name] = (stamp_ns, pixels)
    return last is not None and last[0] == stamp_ns and np.array_equal(last[1], pixels)


def _done(messages: Messages, frame: Frame) -> Iterator[tuple[str, bytes]]:
    """What was done on a frame's observation and what came of it."""
    tick = frame.observation.stamp_ns
    yield "action", messages.action(frame.action, tick, frame.source)
    if frame.requested is not None:
        yield "action/requested", messages.action(frame.requested, tick, frame.source)
    if frame.label is not None:
        yield "action/label", messages.label(frame.label, tick)
    outcome = StepOutcome(frame.reward, frame.terminated, frame.truncated, frame.success)
    yield "step", messages.step(outcome, tick)


def _write_metadata(folder: Path, file: str, journal: McapJournal) -> None:
    """``metadata.yaml`` as rosbag2 of Jazzy writes it (version 9); JSON is yaml."""
    first, last = journal.log_range
    span: dict[str, Any] = {
        "duration": {"nanoseconds": last - first},
        "starting_time": {"nanoseconds_since_epoch": first},
        "message_count": sum(journal.counts.values()),
    }
    topics = [
        {
            "topic_metadata": {
                "name": topic,
                "type": ros_name(kind),
                "serialization_format": "cdr",
                "offered_qos_profiles": [],
                "type_description_hash": "",
            },
            "message_count": journal.counts[topic],
        }
        for topic, kind in journal.topics.items()
    ]
    content = {
        "version": 9,
        "storage_identifier": "mcap",
        "relative_file_paths": [file],
        **span,
        "topics_with_message_count": topics,
        "compression_format": "",
        "compression_mode": "",
        "files": [{"path": file, **span}],
        "custom_data": None,
        "ros_distro": "jazzy",
    }
    text = json.dumps({"rosbag2_bagfile_information": content}, indent=2)
    (folder / "metadata.yaml").write_text(text + "\n", "utf-8")
