"""The process in which a LeRobot policy lives: ``python -m tandem_policies.lerobot.worker``, started by the client.

It reads requests from its standard input and answers on its standard output; what libraries print goes to the standard
error. When its input ends, because the client is gone or wants no more, it ends at once, whatever it is doing.
"""

import os
import queue
import threading
import traceback
from typing import Any

import numpy as np

from tandem_datasets.errors import TandemError
from tandem_policies.lerobot.wire import EndedError, pack, receive, send

Request = tuple[dict[str, Any], list[np.ndarray]]


def main() -> None:
    """Opens what the first request names, and predicts for the others."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # whatever asks its user something gets no answer
    os.dup2(2, 1)
    inbox: queue.Queue[Request] = queue.Queue()
    threading.Thread(target=_read, args=(requests, inbox), daemon=True).start()
    policy: Any = None
    while True:
        request, arrays = inbox.get()
        try:
            if request["do"] == "open":
                policy, told = _open(request)
                send(answers, pack(told))
            else:
                send(answers, pack({}, [_infer(policy, request, arrays)]))
        except EndedError:
            return
        except TandemError as error:
            send(answers, pack({"error": str(error)}))
        except Exception as error:  # noqa: BLE001 (LeRobot and what it stands on raise anything; the client tells)
            traceback.print_exc()
            send(answers, pack({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}))


def _read(descriptor: int, inbox: "queue.Queue[Request]") -> None:
    while True:
        try:
            inbox.put(receive(descriptor))
        except EndedError:
            os._exit(0)
        except BaseException:  # noqa: BLE001 (nothing more can be read: without an end it would outlive its client)
            traceback.print_exc()
            os._exit(1)


def _open(request: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import torch

    torch.set_num_threads(request["threads"])
    from tandem_policies.lerobot.files import open_policy
    from tandem_policies.runtime import TorchPolicy, identity_of

    policy = TorchPolicy(open_policy(request["path"], request["device"]), identity_of(request["path"]))
    return policy, {
        "embodiment": policy.embodiment.to_dict(),
        "n_obs_steps": policy.n_obs_steps,
        "chunk_size": policy.chunk_size,
        "n_action_steps": policy.n_action_steps,
        "identity": policy.identity,
    }


def _infer(policy: Any, request: dict[str, Any], arrays: list[np.ndarray]) -> np.ndarray:
    """``arrays`` are the cameras' images (B, T, H, W, C) in the embodiment's order, and the state (B, T, S)."""
    from tandem_datasets.frames import Observation

    *images, state = arrays
    names = [camera.name for camera in policy.embodiment.cameras]
    histories = [
        [
            Observation(
                {name: rows[row, step] for name, rows in zip(names, images, strict=True)},
                state[row, step],
                text,
                stamp_ns=0,
            )
            for step, text in enumerate(texts)
        ]
        for row, texts in enumerate(request["instructions"])
    ]
    return policy.infer(histories, [(seed, index) for seed, index in request["keys"]])


if __name__ == "__main__":
    main()
