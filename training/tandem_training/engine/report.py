"""What a training shows while it runs: a progress bar or plain lines, curves and pictures."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tandem_training.engine.pictures import write_pictures
from tandem_training.engine.tracking import Tracker
from tandem_training.results import write_whole

HISTORY = "history.jsonl"
CLOCK = ("input_s", "wait_fraction")
_QUIET_S = 10.0  # between two plain lines


class Report:
    """One run's display. Only the main process has one that shows anything (``out`` is None elsewhere).

    ``history.jsonl`` holds a line per point of the curves: ``{"step", "loss", "lr", "grad_norm", ...}`` for training,
    ``{"step", "val": {...}}`` for validations. The same goes to TensorBoard, and to a tracker where there is one.
    """

    def __init__(self, out: Path | None, title: str, step: int, steps: int, tracker: Tracker | None = None) -> None:
        from rich.console import Console

        self._out = out
        self._steps = steps
        self._begun, self._first = time.perf_counter(), step
        self._spoken = self._begun
        self._text = ""
        self._made: Any = None
        self._tracker = tracker
        self._console = Console(quiet=out is None, highlight=False, soft_wrap=True)
        self._bar = _bar(self._console) if out is not None and self._console.is_terminal else None
        if out is not None:
            _cut_history(out / HISTORY, step)
            self._history = (out / HISTORY).open("a", buffering=1)
        self._task = self._bar.add_task(title, total=steps, completed=step, text="") if self._bar else None
        if self._bar:
            self._bar.start()

    def note(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, markup=False)

    def advance(self, step: int) -> None:
        """Step ``step`` is done; cheap."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step)

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """Mean training scalars up to ``step``."""
        self._write({"step": step, **values}, {f"train/{name}": value for name, value in values.items()}, step)
        self._text = f"loss {values['loss']:.4f}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, text=self._text)
        elif time.perf_counter() - self._spoken > _QUIET_S:
            self._line(step)

    def validation(self, step: int, values: Mapping[str, float], is_best: bool) -> None:
        """Validation metrics at ``step``."""
        self._write({"step": step, "val": dict(values)}, {f"val/{name}": value for name, value in values.items()}, step)
        shown = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._line(step, f"; validation: {shown}{' (best so far)' if is_best else ''}")

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """What the stage drew at ``step``, uint8 (H, W, 3) by name."""
        if self._out is None or not pictures:
            return
        write_pictures(self._out, step, pictures)
        for name, picture in pictures.items():
            self._board().add_image(name, picture, step, dataformats="HWC")
        if self._tracker:
            self._tracker.pictures(step, pictures)

    def close(self, failed: bool) -> None:
        """Nothing comes any more."""
        if self._bar is not None:
            self._bar.stop()
        if self._made is not None:
            self._made.close()
        if self._out is not None:
            self._history.close()
        if self._tracker:
            self._tracker.close(failed)

    def _line(self, step: int, tail: str = "") -> None:
        seconds = time.perf_counter() - self._begun
        rate = (step - self._first) / max(seconds, 1e-9)
        left = (self._steps - step) / rate if rate else 0.0
        self.note(f"step {step}/{self._steps}, {rate:.1f} steps/s, {left:.0f} s left; {self._text}{tail}")
        self._spoken = time.perf_counter()

    def _write(self, record: Mapping[str, Any], scalars: Mapping[str, float], step: int) -> None:
        if self._out is None:
            return
        self._history.write(json.dumps(record) + "\n")
        for name, value in scalars.items():
            self._board().add_scalar(name, value, step)
        if self._tracker:
            self._tracker.scalars(step, scalars)

    def _board(self) -> Any:
        assert self._out is not None
        if self._made is None:  # imported after the first steps: it costs half a second
            from torch.utils.tensorboard import SummaryWriter

            self._made = SummaryWriter(str(self._out / "tensorboard"), purge_step=self._first + 1)
        return self._made


def read_history(out: Path, clock: bool = True) -> list[dict[str, Any]]:
    """The lines of ``<out>/history.jsonl``; a last line that a kill cut short is left out.

    Without ``clock`` the figures that were read off a clock are left out: the others repeat from run to run.
    """
    path = out / HISTORY
    records = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    if not clock:
        records = [{key: value for key, value in record.items() if key not in CLOCK} for record in records]
    return records


def _cut_history(path: Path, step: int) -> None:
    """Drops what a resumed run will write again."""
    kept = [json.dumps(record) + "\n" for record in read_history(path.parent) if record["step"] <= step]
    write_whole(path, "".join(kept).encode())


def _bar(console: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed or 0:.1f} steps/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=4,
    )
