"""What a ROS 2 graph of Tandem consists of, described once.

``tandem launch`` and the rollout backend start a :class:`Graph` with :mod:`tandem_ros.supervisor`, the real
``ros2 launch`` through :mod:`tandem_ros.launch_actions`. This module needs no ROS.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tandem_datasets.embodiment import Embodiment
from tandem_datasets.errors import TandemError, unknown
from tandem_datasets.rollout import EXPERT, EnvSpec
from tandem_ros.domain import patience_s

Value = bool | int | float | str
"""What a node's parameter can be here."""

_NAMESPACE = re.compile(r"(/?[A-Za-z_][A-Za-z0-9_]*)*")
_MODES = ("lockstep", "realtime")
_TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Node:
    """One process with one ROS node in it."""

    module: str  # run as `python -m MODULE`
    name: str
    namespace: str = ""  # "" or "/robot1"
    parameters: Mapping[str, Value] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    required: bool = True  # its death ends the graph with an error
    ends: bool = False  # its clean exit ends the graph: the work is done
    lifecycle: bool = False  # a managed node

    def ros_arguments(self, parameter_file: Path | None) -> list[str]:
        """The command line after the module, as every ROS node reads it."""
        rules = [f"__node:={self.name}", f"__ns:={self.namespace or '/'}"]
        rules += [f"{old}:={new}" for old, new in self.remappings]
        files = [] if parameter_file is None else ["--params-file", str(parameter_file)]
        return ["--ros-args", *(part for rule in rules for part in ("-r", rule)), *files]

    def parameter_text(self) -> str:
        """The parameters as a ROS parameter file; JSON, of which YAML is a superset."""
        return json.dumps({"/**": {"ros__parameters": dict(self.parameters)}}, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Graph:
    """Nodes that belong together."""

    nodes: tuple[Node, ...]
    namespace: str = ""
    domain: int | None = None  # None: the environment's ROS_DOMAIN_ID, or a free one


@dataclass(frozen=True)
class Argument:
    """A ``name:=value`` of a launch file."""

    name: str
    help: str
    default: str | None = None  # None: must be given
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaunchFile:
    """A name, its arguments, and how these become a graph."""

    name: str
    summary: str
    arguments: tuple[Argument, ...]
    build: Callable[[Mapping[str, str]], Graph]

    def resolve(self, given: Mapping[str, str]) -> dict[str, str]:
        """Every argument's value; raises TandemError for what is unknown, missing or not among the choices."""
        where = f"launch {self.name}"
        known = {argument.name: argument for argument in self.arguments}
        for name in given:
            if name not in known:
                raise unknown(where, name, known)
        values = {name: given.get(name, argument.default) for name, argument in known.items()}
        for name, value in values.items():
            if value is None or (value == "" and known[name].default is None):
                raise TandemError(f"{where}: missing {name}:=... ({known[name].help})")
            if known[name].choices and value not in known[name].choices:
                raise unknown(f"{where}: {name}", value, known[name].choices)
        return {name: value for name, value in values.items() if value is not None}

    def graph(self, given: Mapping[str, str]) -> Graph:
        """The graph for these arguments; raises TandemError like :meth:`resolve` and for values that mean nothing."""
        return self.build(self.resolve(given))


def rollout(
    env: EnvSpec,
    policy: str,
    *,
    embodiment: Embodiment | None = None,
    mode: str = "lockstep",
    episodes: int = 1,
    seed: int = 0,
    record: Path | None = None,
    label: bool = False,
    provenance: Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int = 1,
    namespace: str = "",
    domain: int | None = None,
) -> Graph:
    """The graph that rolls out ``policy`` (a directory, or ``expert``) in any environment, episode i from ``seed + i``.

    Args:
        embodiment: the environment's; made from it if not given.
        record: store to append every episode to.
        label: also ask the expert at each step.
        provenance: what to write down with each recorded episode; plain JSON types.
    """
    if embodiment is None:
        from tandem_sim.registry import embodiment as embodiment_of

        embodiment = embodiment_of(env)
    contract = json.dumps(embodiment.to_dict())
    place = normal_namespace(namespace)
    expert = policy == EXPERT
    observers = [name for name, wanted in (("policy", not expert), ("recorder", record is not None)) if wanted]
    simulation: dict[str, Value] = {
        "env_id": env.id,
        "env_options": json.dumps(dict(env.options)),
        "mode": mode,
        "label": label,
        "expert": expert,
        "listeners": ",".join(observers),
        "begin_ns": _clock_ns(record),
        "probe_s": patience_s(domain),
    }
    nodes = [Node("tandem_ros.nodes.simulation", "simulation", place, simulation)]
    if not expert:
        served: dict[str, Value] = {"path": policy, "device": device, "threads": threads, "mode": mode}
        served |= {"embodiment": contract, "autostart": True}
        nodes.append(Node("tandem_ros.nodes.policy", "policy", place, served, lifecycle=True))
    if record is not None:
        recorded: dict[str, Value] = {"store": str(record), "embodiment": contract, "label": label}
        nodes.append(Node("tandem_ros.nodes.recorder", "recorder", place, recorded))
    wanted: dict[str, Value] = {
        "episodes": episodes,
        "seed": seed,
        "env_id": env.id,
        "policy": not expert,
        "record": record is not None,
        "provenance": json.dumps(dict(provenance or {})),
    }
    nodes.append(Node("tandem_ros.nodes.episodes", "episodes", place, wanted, ends=True))
    return Graph(tuple(nodes), place, domain)


def _clock_ns(record: Path | None) -> int:
    """When the first new episode can begin on the clock of the store that it is appended to, if there is one."""
    if record is None or not (record / "zarr.json").exists():
        return 0
    from tandem_datasets.store import Store

    store = Store(record)
    return store.info(store.n_episodes - 1).end_ns + 2 * store.embodiment.period_ns if store.n_episodes else 0


def normal_namespace(text: str) -> str:
    """``robot1`` and ``/robot1/`` become ``/robot1``, ``/`` becomes nothing."""
    plain = text.strip("/")
    if not _NAMESPACE.fullmatch(plain):
        raise TandemError(f"ROS namespace: '{text}' (allowed: letters, digits and _ in parts divided by /)")
    return f"/{plain}" if plain else ""


def _rollout_arguments() -> tuple[Argument, ...]:
    return (
        Argument("policy", "policy directory, or 'expert'"),
        Argument("options", "options of the environment, as JSON", "{}"),
        Argument("mode", "whether the simulation waits for each action", "lockstep", _MODES),
        Argument("episodes", "how many episodes to run", "10"),
        Argument("seed", "seed of the first episode; the next ones count up", "0"),
        Argument("record", "store to append the episodes to; empty: none", ""),
        Argument("label", "also record what the expert would have done", "false", tuple(_TRUTH)),
        Argument("device", "where the policy computes: cpu, cuda, mps or auto", "cpu"),
        Argument("threads", "threads of the policy's network", "1"),
        Argument("namespace", "ROS namespace of all nodes", ""),
        Argument("domain", "ROS domain, 0..232; empty: ROS_DOMAIN_ID (tandem launch: else a free one)", ""),
    )


def _environment(name: str, env_id: str, summary: str) -> LaunchFile:
    """A launch file that rolls out a policy in one environment."""

    def build(values: Mapping[str, str]) -> Graph:
        where = f"launch {name}"
        return rollout(
            EnvSpec(env_id, _options(where, values["options"])),
            _policy(where, values["policy"]),
            mode=values["mode"],
            episodes=_integer(where, "episodes", values["episodes"], 1, 1_000_000),
            seed=_integer(where, "seed", values["seed"], 0, 2**31 - 1),
            record=Path(values["record"]).expanduser().absolute() if values["record"] else None,
            provenance={"policy": values["policy"]},
            label=_TRUTH[values["label"]],
            device=values["device"],
            threads=_integer(where, "threads", values["threads"], 1, 1024),
            namespace=values["namespace"],
            domain=_integer(where, "domain", values["domain"], 0, 232) if values["domain"] else None,
        )

    return LaunchFile(name, summary, _rollout_arguments(), build)


def _policy(where: str, text: str) -> str:
    if text == EXPERT:
        return EXPERT
    folder = Path(text).expanduser().absolute()
    if not (folder / "config.json").is_file():
        raise TandemError(f"{where}: policy '{text}' holds no config.json (allowed: a policy directory, or '{EXPERT}')")
    return str(folder)


def _options(where: str, text: str) -> dict[str, object]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise TandemError(f"{where}: options '{text}' are no JSON: {error}") from error
    if not isinstance(options, dict):
        raise TandemError(f"{where}: options '{text}' (allowed: a JSON object, like {{}})")
    return options


def _integer(where: str, name: str, text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise TandemError(f"{where}: {name} '{text}' (allowed: {low}..{high})")
    return number


_FILES: Sequence[LaunchFile] = (
    _environment("blockfind", "tandem/BlockFind-v0", "Rolls out a policy in BlockFind: find the named block."),
)
LAUNCH_FILES: Mapping[str, LaunchFile] = {launch_file.name: launch_file for launch_file in _FILES}


def launch_file(name: str) -> LaunchFile:
    """The launch file called ``name``, with or without ``.launch.py``; raises TandemError with the nearest name."""
    plain = Path(name).name.removesuffix(".launch.py")
    if plain not in LAUNCH_FILES:
        raise unknown("launch file", name, LAUNCH_FILES)
    return LAUNCH_FILES[plain]
