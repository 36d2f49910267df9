"""Composes a command's Hydra configuration from ``key=value`` arguments, with one-line errors.

Every command has a ``conf/<command>.yaml``. ``--cfg job`` prints what was composed instead of running.
A value must have the type of its default in the yaml file; a default of ``null`` or ``???`` takes any.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

from tandem_datasets.errors import TandemError, unknown

CONF_MODULE = "tandem_training.conf"


@dataclass(frozen=True)
class _Change:
    """One argument that sets a key."""

    text: str  # as it was written
    key: str  # dotted
    value: Any
    added: bool  # `+key=value`


def parse(command: str, argv: Sequence[str], doc: str, saved=None):
    """The composed DictConfig, or None if the arguments only asked for help or the configuration.

    Args:
        command: name of ``conf/<command>.yaml``.
        argv: ``key=value`` overrides, ``--cfg job``, ``--help``.
        doc: the command's help text.
        saved: a configuration to put the overrides on, as :func:`recompose` does.

    Raises:
        TandemError: an override names a key, group or option that does not exist, its value has another
            type than the default, or a value is missing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where = _where(command)
    arguments = list(argv)
    if "-h" in arguments or "--help" in arguments:
        print(f"usage: {where} [key=value ...] [--cfg job]\n\n{doc.strip()}\n\nKeys and defaults:\n")
        print(OmegaConf.to_yaml(compose(command, [])))
        return None
    show = False
    if "--cfg" in arguments:
        at = arguments.index("--cfg")
        if arguments[at + 1 : at + 2] != ["job"]:
            raise TandemError(f"{where}: --cfg takes 'job'")
        show = True
        del arguments[at : at + 2]
    config = compose(command, arguments) if saved is None else recompose(command, saved, arguments)
    if show:
        print(OmegaConf.to_yaml(config), end="")
        return None
    try:
        OmegaConf.resolve(config)
        missing = sorted(OmegaConf.missing_keys(config))
    except OmegaConfBaseException as error:
        raise TandemError(f"{where}: {_one_line(error)}") from error
    if missing:
        wanted = " ".join(f"{key}=..." for key in missing)
        raise TandemError(f"{where}: missing {wanted}")
    return config


def compose(command: str, overrides: Sequence[str]):
    """The DictConfig of ``conf/<command>.yaml`` with overrides; see :func:`parse` for errors.

    Hydra composes the groups. Keys are set here: Hydra would take a key for a group wherever a folder of
    that name exists, so `policy=<dir>` of one command would clash with the group `policy` of another.
    """
    return _composed(command, overrides, None)


def recompose(command: str, saved, overrides: Sequence[str]):
    """:func:`compose` over a configuration that was composed before, perhaps by an older version.

    What the overrides do not set is ``saved``'s; keys that it does not have yet get their defaults.
    """
    return _composed(command, overrides, saved)


def expand(command: str, overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a sweep: every combination of the overrides' several values (``a,b``, ``choice()``, ``range()``).

    Raises:
        TandemError: an override cannot be read, or is no list of values.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.errors import HydraException

    where = _where(command)
    parsed = [_parsed(where, text) for text in overrides]
    try:
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        raise TandemError(f"{where}: {_one_line(error)} (allowed: a,b or choice(a,b) or range(a,b))") from error
    return jobs


def given(command: str, overrides: Sequence[str], key: str) -> Any:
    """The one value that the overrides give a key, None if they do not; see :func:`compose` for errors."""
    where = _where(command)
    found = [_one_value(where, text) for text in overrides if text.lstrip("+").startswith(f"{key}=")]
    return found[-1].value() if found else None


def keys_set(command: str, overrides: Sequence[str]) -> set[str]:
    """The dotted keys that overrides set, those of a chosen preset too; see :func:`compose` for errors."""
    found = set()
    for text in overrides:
        parsed = _parsed(_where(command), text)
        key, value = parsed.key_or_group, parsed.value()
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}" for name in value}
        elif key == "preset" and str(value) in group_options(key):
            found |= _keys_in(key, str(value))
        found.add(key)
    return found


def _composed(command: str, overrides: Sequence[str], saved):
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where = _where(command)
    with initialize_config_module(CONF_MODULE, version_base="1.3"):
        try:
            groups = _groups(command)
            choices, changes = _sort(where, overrides, groups)
            defaults = hydra_compose(command, overrides=choices)
            config = defaults.copy()
            if saved is not None:
                config = _laid_over(hydra_compose(command), saved, defaults, [_parsed(where, text) for text in choices])
            for change in changes:
                _check(where, config, change, groups)
                default = _default(defaults if change.key in _flatten(defaults) else config, change.key)
                _check_type(where, change.key, default, change.value)
                value = _as_text(default, change)
                OmegaConf.update(config, change.key, value, merge=True, force_add=change.added)
        except (HydraException, OmegaConfBaseException) as error:
            raise TandemError(f"{where}: {_one_line(error)}") from error
    return config


def _laid_over(plain, saved, composed, choices: Sequence[Any]):
    """``saved`` over the defaults, and over it what the choices of groups say."""
    from omegaconf import OmegaConf

    config = plain.copy()
    for key, value in saved.items():
        if key == "policy":  # of another type it has other keys
            config[key] = value
        else:
            OmegaConf.update(config, str(key), value, merge=True, force_add=True)
    for choice in choices:
        group = choice.key_or_group
        if group in composed:
            config[group] = composed[group]
        else:  # a preset sets keys of other groups
            for key in _keys_in(group, str(choice.value())):
                OmegaConf.update(config, key, OmegaConf.select(composed, key), force_add=True)
    return config


def _keys_in(group: str, option: str) -> set[str]:
    """The dotted keys that an option's file gives a value; not the groups that they are in."""
    from importlib.resources import files

    from omegaconf import OmegaConf

    keys = list(_flatten(OmegaConf.create(files(CONF_MODULE).joinpath(group, f"{option}.yaml").read_text())))
    return {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}


def group_options(group: str) -> list[str]:
    """All options of a config group, nested ones as ``tinyvla/nano``."""
    return sorted(_walk(group, ""))


def _walk(group: str, prefix: str) -> Iterator[str]:
    from importlib.resources import files

    folder = files(CONF_MODULE).joinpath(*group.split("/"))
    if not folder.is_dir():
        return
    for item in folder.iterdir():
        if item.is_dir() and not item.name.startswith("_"):
            yield from _walk(f"{group}/{item.name}", f"{prefix}{item.name}/")
        elif item.name.endswith(".yaml"):
            yield prefix + item.name.removesuffix(".yaml")


@cache
def _groups(command: str) -> list[str]:
    """The groups that a command's yaml chooses from; called with Hydra initialised."""
    from hydra import compose as hydra_compose

    chosen = hydra_compose(command, return_hydra_config=True).hydra.runtime.choices
    return [name for name in chosen if not name.startswith("hydra/")]


def _where(command: str) -> str:
    """How a command is called: ``bench_loop.yaml`` belongs to `tandem bench loop`."""
    return f"tandem {command.replace('_', ' ')}"


def _sort(where: str, overrides: Sequence[str], groups: Sequence[str]) -> tuple[list[str], list[_Change]]:
    """Choices of groups for Hydra, and changes of keys."""
    choices, changes = [], []
    for text in overrides:
        parsed = _one_value(where, text)
        if parsed.key_or_group in groups and not isinstance(parsed.value(), Mapping):
            option = str(parsed.value())
            if option not in group_options(parsed.key_or_group):
                raise unknown(f"{where}: {parsed.key_or_group}", option, group_options(parsed.key_or_group))
            choices.append(text)
        else:
            changes.append(_Change(text, parsed.key_or_group, parsed.value(), parsed.is_add()))
    return choices, changes


def _one_value(where: str, text: str):
    """One argument that is no sweep."""
    parsed = _parsed(where, text)
    if parsed.is_sweep_override():
        raise TandemError(f"{where}: '{text}' holds several values (allowed: one, or a list key='[a,b]')")
    return parsed


def _parsed(where: str, text: str):
    """One argument, read by Hydra's grammar."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if "=" not in text or text.startswith(("-", "~", "=")):
        raise TandemError(f"{where}: '{text}' is not of the form key=value")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise TandemError(f"{where}: '{text}' cannot be read (quote odd characters: key='\"a=b\"')") from error


def _check(where: str, config, change: _Change, groups: Sequence[str]) -> None:
    """Raises TandemError unless the key exists or may be added."""
    from omegaconf import DictConfig, OmegaConf

    keys = list(_flatten(config))
    parent = change.key.rpartition(".")[0]
    inside = bool(parent) and parent in keys and isinstance(OmegaConf.select(config, parent), DictConfig)
    if change.key not in keys:
        if change.added and inside:
            return
        siblings = [key for key in keys if inside and key.rpartition(".")[0] == parent]
        top = sorted({key.split(".")[0] for key in keys} | set(groups))
        near = get_close_matches(change.key, keys + top, n=1, cutoff=0.5)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise TandemError(f"{where}: unknown name '{change.key}'{hint} (allowed: {', '.join(siblings or top)})")


def _as_text(default: Any, change: _Change) -> Any:
    """The value; as it was written where a text is wanted and it looks like a number (`cache=7`)."""
    number = isinstance(change.value, int | float)
    return change.text.partition("=")[2] if number and isinstance(default, str) else change.value


def quoted(text: object) -> str:
    """``text`` as a value of an override, whatever characters it holds."""
    return "'" + str(text).replace("'", r"\'") + "'"


def _default(config, key: str) -> Any:
    from omegaconf import OmegaConf

    if OmegaConf.is_missing(config, key) or key in OmegaConf.missing_keys(config):
        return None
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _check_type(where: str, key: str, default: Any, value: Any) -> None:
    if default is None or default == "???" or (isinstance(value, str) and "${" in value):
        return
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            first = next(iter(default), "name")
            raise TandemError(
                f"{where}: {key} is a group of keys, not '{value}' (allowed: {key}.{first}=..., and so on)"
            )
        for name, inner in value.items():
            if name not in default:
                raise unknown(f"{where}: {key}", str(name), [str(known) for known in default])
            _check_type(where, f"{key}.{name}", default[name], inner)
        return
    for kind, article in (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (list, "a list [a,b]"),
    ):
        if isinstance(default, kind):
            fine = isinstance(value, (int, float) if kind is float else kind)
            if not fine or (isinstance(value, bool) and kind is not bool):
                shown = "null" if value is None else f"'{value}'"
                raise TandemError(f"{where}: {key} is {shown} (allowed: {article}, such as {_shown(default)})")
            return
    if isinstance(default, str) and (value is None or isinstance(value, Mapping | list)):
        raise TandemError(
            f"{where}: {key} is {'null' if value is None else value} (allowed: a text, such as '{default}')"
        )


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _flatten(config, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig, OmegaConf

    for key in config:
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            yield from _flatten(config[key], name + ".")


def section(config) -> dict[str, Any]:
    """A part of a composed configuration as a plain dict; empty where it is null."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(config, resolve=True) if config is not None else {}
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def env_spec(config):
    """The :class:`~tandem_datasets.rollout.EnvSpec` of a configuration's group ``env``."""
    from tandem_datasets.rollout import EnvSpec

    return EnvSpec(str(config.env.id), section(config.env.options))
