"""The episode store: recording, reading and loading windows, opening very many episodes, what formats bring back.

    tandem bench data
    tandem bench data rows='[read_jpeg,read_raw]'

Two cameras of 128x128, 28 state and 28 action scalars; windows of 2 observations and 16 actions. Every ratio is taken
in one run, in turns: rows of one process by its CPU time, those of a loader by the clock.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tandem_datasets.store import Store
from tandem_training.benches._measuring import Target, measure_groups
from tandem_training.provenance import code_digest
from tandem_training.results import Row
from tandem_training.steps import Done, Steps, steps


def _least(value: float) -> Target:
    return Target("x", f">= {value:g} x", lambda found: found >= value)


def _most(unit: str, value: float) -> Target:
    return Target(unit, f"<= {value:g}", lambda found: found <= value)


TARGETS = {
    "record_rate": _least(0.8),
    "record_cpu_ms": _most("ms", 0.25),
    "add_p99_ms": _most("ms", 1),
    "read_jpeg": _least(0.9),
    "read_raw": _least(0.25),
    "vs_lerobot_video": _least(10),
    "vs_webdataset": _least(1.1),
    "loader_jpeg": _least(0.75),
    "loader_raw": _least(0.35),
    "open_100k_ms": _most("ms", 20),
    "open_100k_all_ms": _most("ms", 150),
    "open_100k_mb": _most("MB", 50),
    "roundtrip_lerobot": Target("", "exact to the byte; JPEG >= 40 dB", bool),
    "roundtrip_replay": Target("", "exact to the byte", bool),
    "roundtrip_mcap": Target("", "exact to the byte", bool),
}
_ROUND_TRIPS = ("roundtrip_lerobot", "roundtrip_replay", "roundtrip_mcap")


def measure(config: Any, wanted: set[str]) -> list[Row]:
    """The rows of :data:`TARGETS`; stores are made below ``config.cache`` where they are not there yet."""
    with ExitStack() as stack:
        job = stack.enter_context(
            steps(Path(config.cache) / "data", code_digest(("tandem_datasets",)), "tandem bench data")
        )
        bench = DataBench(config, job)
        groups = [
            (["record_rate", "record_cpu_ms", "add_p99_ms"], bench.recording),
            (["read_jpeg"], bench.read_jpeg),
            (["read_raw"], bench.read_raw),
            (["vs_lerobot_video"], bench.vs_lerobot_video),
            (["vs_webdataset"], bench.vs_webdataset),
            (["loader_jpeg"], bench.loader_jpeg),
            (["loader_raw"], bench.loader_raw),
            (["open_100k_ms", "open_100k_all_ms", "open_100k_mb"], bench.opening),
            *(([name], lambda name=name: bench.round_trip(name)) for name in _ROUND_TRIPS),
        ]
        return measure_groups(TARGETS, groups, wanted)


class DataBench:
    """One configuration's measurements; each method gives the rows of one group."""

    def __init__(self, config: Any, job: Steps) -> None:
        self.config, self.job = config, job

    # what the rows need

    def store(self, codec: str, episodes: int, length: int) -> Done:
        """A store of drawn episodes."""
        from tandem_training.benches import _data_scenes

        def make(path: Path) -> None:
            _data_scenes.record(path, codec, episodes, length)

        return self.job.run(f"{codec}-{episodes}x{length}.zarr", {"episodes": episodes, "length": length}, make)

    def scenes(self, codec: str) -> Done:
        return self.store(codec, self.config.episodes, self.config.length)

    # rows

    def recording(self) -> list[Row]:
        from tandem_training.benches import _data_record

        with TemporaryDirectory(prefix="tandem-bench-", dir=self.config.cache) as folder:  # on the disk of the stores
            return _data_record.recording(Path(folder), self.config.repeats)

    def read_jpeg(self) -> list[Row]:
        from tandem_training.benches import _data_reading

        return [_data_reading.read_jpeg(self.scenes("jpeg").path, self.config.batches, self.config.repeats)]

    def read_raw(self) -> list[Row]:
        from tandem_training.benches import _data_reading

        return [_data_reading.read_raw(self.scenes("raw").path, self.config.batches, self.config.repeats)]

    def vs_webdataset(self) -> list[Row]:
        from tandem_datasets.formats import webdataset
        from tandem_training.benches import _data_reading

        store = self.scenes("jpeg")

        def make(path: Path) -> None:
            webdataset.export(Store(store.path), path, history=2, chunk=16)

        shards = self.job.run("webdataset", {}, make, (store,))
        batches = min(self.config.batches, Store(store.path).n_frames // _data_reading.BATCH)
        return [_data_reading.vs_webdataset(store.path, shards.path, batches, self.config.repeats)]

    def vs_lerobot_video(self) -> list[Row]:
        from tandem_datasets.formats import lerobot
        from tandem_training.benches import _data_reading

        store = self.scenes("jpeg")

        def make(path: Path) -> None:
            lerobot.export(Store(store.path), path, video=True)

        dataset = self.job.run("lerobot", {}, make, (store,))
        return [
            _data_reading.vs_lerobot_video(
                store.path, dataset.path, self.config.lerobot_windows, min(3, self.config.repeats)
            )
        ]

    def loader_jpeg(self) -> list[Row]:
        from tandem_training.benches import _data_reading

        return [_data_reading.loader_jpeg(self.scenes("jpeg").path, self.config.loader_batches, self.config.repeats)]

    def loader_raw(self) -> list[Row]:
        from tandem_training.benches import _data_reading

        return [_data_reading.loader_raw(self.scenes("raw").path, self.config.loader_batches, self.config.repeats)]

    def opening(self) -> Sequence[Row]:
        from tandem_training.benches import _data_opening

        many = self.job.run("many.zarr", {"episodes": _data_opening.EPISODES}, _data_opening.record_many)
        return _data_opening.opening(many.path, self.config.repeats)

    def round_trip(self, name: str) -> list[Row]:
        from tandem_training.benches import _data_formats

        store = self.store("zstd", 3, 60)
        with TemporaryDirectory(prefix="tandem-bench-") as folder:
            return [getattr(_data_formats, name)(Store(store.path), Path(folder))]
