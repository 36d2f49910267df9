"""A LeRobot policy directory as a Policy, computed in a process of its own; imports no LeRobot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.frames import blank_observation, check_observation
from tandem_datasets.policy import History, NoiseKey
from tandem_policies.lerobot.checking import check_directory
from tandem_policies.lerobot.process import Worker

START_TIMEOUT_S = 600.0  # importing LeRobot takes 16 s on a quiet machine; large weights come from disk
ANSWER_TIMEOUT_S = 600.0  # a large model on a CPU computes for minutes


class RemotePolicy:
    """A LeRobot policy at work; see :class:`tandem_datasets.policy.Policy`.

    Its noise comes from the keys alone, so that with one thread count equal observations give bit-equal chunks.

    Args:
        path: a policy directory in LeRobot's layout, with ``embodiment.json``.
        device: torch's, where it computes.
        threads: torch's, on the CPU.

    Raises:
        TandemError: the directory cannot be opened, with the reason; or its process does not come up.
    """

    speaks = False

    def __init__(self, path: str | Path, device: str = "cpu", threads: int = 1) -> None:
        self._where = f"policy '{path}'"
        check_directory(path)  # what can be refused at once is
        self._worker = Worker(self._where, threads)
        question = {"do": "open", "path": str(Path(path).absolute()), "device": device, "threads": threads}
        try:
            told, _ = self._worker.ask(question, [], START_TIMEOUT_S)
        except BaseException:  # also Ctrl-C
            self._worker.close()
            raise
        self.embodiment = Embodiment.from_dict(told["embodiment"], self._where)
        self.n_obs_steps: int = told["n_obs_steps"]
        self.chunk_size: int = told["chunk_size"]
        self.n_action_steps: int = told["n_action_steps"]
        self.identity: str = told["identity"]

    def infer(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> np.ndarray:
        """Chunks float32 (B, K, A) in the embodiment's units, one per history.

        Raises:
            TandemError: an observation does not fit the embodiment, or the process is gone.
        """
        for history in histories:
            assert len(history) == self.n_obs_steps, f"{len(history)} observations, not {self.n_obs_steps}"
            for observation in history:
                check_observation(self.embodiment, observation, self._where, more=True)
        arrays = [
            np.stack([[seen.images[camera.name] for seen in history] for history in histories])
            for camera in self.embodiment.cameras
        ]
        arrays.append(np.stack([[seen.state for seen in history] for history in histories]))
        question = {
            "do": "infer",
            "instructions": [[seen.instruction for seen in history] for history in histories],
            "keys": [[int(seed), int(index)] for seed, index in keys],
        }
        return self._worker.ask(question, arrays, ANSWER_TIMEOUT_S)[1][0]

    def say(self, histories: Sequence[History], keys: Sequence[NoiseKey]) -> list[str]:
        """Nothing: LeRobot's policies do not speak."""
        return [""] * len(histories)

    def warm_up(self, inferences: int = 3) -> None:
        """Runs on a blank observation, so that the first real one is not slower than the others."""
        for _ in range(inferences):
            self.infer([[blank_observation(self.embodiment)] * self.n_obs_steps], [(0, 0)])

    def close(self) -> None:
        """Ends its process. Without it, that ends with this object or with this process."""
        self._worker.close()
