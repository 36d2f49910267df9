"""The rollout backend ``ros2``: the same episodes as ``inprocess``, run by a real ROS 2 graph of processes.

Its options (Hydra group ``ros``): see ``DEFAULTS``.
"""

import importlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.rollout import EXPERT, EpisodeResult, RolloutRequest
from tandem_ros.domain import claim
from tandem_ros.graph import Graph, Value, rollout
from tandem_ros.stats import EpisodeReport
from tandem_ros.supervisor import Supervisor
from tandem_sim.registry import embodiment as embodiment_of

DEFAULTS: Mapping[str, Any] = {
    "mode": "lockstep",  # whether the simulation waits for each action; or "realtime"
    "domain_id": None,  # ROS domain 1..232; None: a free one
    "namespace": "",
    "device": "cpu",  # where the policy computes
    "threads": 1,  # of the policy's network
    "ready_timeout_s": 300.0,  # until all nodes are up; a policy of LeRobot's takes its time
    "call_timeout_s": 10.0,  # of each acknowledgement between nodes
    "episode_timeout_s": 600.0,  # of a whole episode
    "answer_timeout_s": 0.5,  # lock-step: after it an unanswered observation is sent again
    "answer_tries": 10,  # lock-step: after so many, the episode fails
}
_IGNORED = ("noise",)  # the in-process backend's own, left at zero
_POLL_S = 0.02


def run(request: RolloutRequest, on_episode: Callable[[EpisodeResult], None]) -> list[EpisodeResult]:
    """Runs the episodes; see :class:`tandem_datasets.rollout.RolloutBackend`.

    Raises:
        TandemError: no ROS here, an unknown option, the domain is taken, a node died (with its last error line).
    """
    options = _options(request)
    require_ros()
    results: list[EpisodeResult] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tandem-rollout-")))
        reports = folder / "episodes.jsonl"
        reports.touch()
        domain_id = stack.enter_context(claim(options["domain_id"], options["namespace"]))
        graph = _graph(request, {**options, "domain_id": domain_id}, reports)
        supervisor = stack.enter_context(Supervisor(graph, domain_id=domain_id))
        for report in _follow(reports, supervisor.poll):
            result = report.to_result()
            results.append(result)
            on_episode(result)
    if len(results) != request.episodes:
        raise TandemError(f"rollout: the graph ended after {len(results)} of {request.episodes} episodes")
    return results


def require_ros() -> None:
    """Raises TandemError with how to install ROS 2 if it is not there."""
    for module in ("rclpy", "sensor_msgs", "trajectory_msgs", "std_srvs", "diagnostic_msgs"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise TandemError(
                f"ROS 2: {module} cannot be imported: {error} "
                "(allowed: Linux with `pip install tandem-robotics[ros]`, or a sourced ROS 2 installation)"
            ) from error


def _options(request: RolloutRequest) -> dict[str, Any]:
    options = dict(DEFAULTS)
    for name, value in request.options.items():
        if name in _IGNORED and not value:
            continue
        if name not in DEFAULTS:
            raise unknown("rollout with ros2: option", name, DEFAULTS)
        default = DEFAULTS[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)  # noqa: PLW2901
        fits = value is None or type(value) is int if default is None else type(value) is type(default)
        if not fits or (isinstance(value, float | int) and value <= 0):
            raise TandemError(f"rollout with ros2: {name} is {value!r} (allowed: like {default!r})")
        options[name] = value
    if options["mode"] not in ("lockstep", "realtime"):
        raise unknown("rollout with ros2: mode", options["mode"], ("lockstep", "realtime"))
    for name, value, least in (("episodes", request.episodes, 1), ("seed", request.seed, 0)):
        if value < least:
            raise TandemError(f"rollout: {name} is {value} (allowed: {least} and more)")
    return options


def _graph(request: RolloutRequest, options: Mapping[str, Any], reports: Path) -> Graph:
    embodiment = embodiment_of(request.env)
    _require_fit(request.policy, embodiment)
    graph = rollout(
        request.env,
        request.policy,
        embodiment=embodiment,
        mode=options["mode"],
        episodes=request.episodes,
        seed=request.seed,
        record=request.record.absolute() if request.record else None,
        label=request.label,
        provenance={"policy": request.policy, **request.provenance},
        device=options["device"],
        threads=options["threads"],
        namespace=options["namespace"],
        domain=options["domain_id"],
    )
    extra: dict[str, dict[str, Value]] = {
        "simulation": {name: options[name] for name in ("answer_timeout_s", "answer_tries")},
        "episodes": {name: options[name] for name in ("ready_timeout_s", "call_timeout_s", "episode_timeout_s")},
    }
    extra["episodes"]["report"] = str(reports)
    nodes = [replace(node, parameters={**node.parameters, **extra.get(node.name, {})}) for node in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


def _require_fit(policy: str, embodiment: Embodiment) -> None:
    """Refuses early what the policy node would refuse seconds later; whatever else is wrong, it finds itself."""
    if policy == EXPERT:
        return
    beside = Path(policy) / "embodiment.json"  # of LeRobot's own policies
    config = beside if beside.is_file() else Path(policy) / "config.json"
    try:
        content = json.loads(config.read_text("utf-8"))
        made_for = content if config is beside else content["embodiment"]
    except OSError as error:
        raise TandemError(f"policy '{policy}': {config} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError):
        return
    Embodiment.from_dict(made_for, str(config)).require_fit(embodiment, f"policy '{policy}'")


def _follow(reports: Path, alive: Callable[[], bool]) -> Iterator[EpisodeReport]:
    """The reports as they are written, until the graph's work is done and none is left."""
    with reports.open(encoding="utf-8") as lines:
        rest = ""
        while True:
            working = alive()  # before reading: what came until then is read once more
            while line := lines.readline():
                rest += line
                if rest.endswith("\n"):
                    yield EpisodeReport.from_json(rest)
                    rest = ""
            if not working:
                return
            time.sleep(_POLL_S)
