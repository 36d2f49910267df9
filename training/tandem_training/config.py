"""Composes a command's Hydra configuration from ``key=value`` arguments, with one-line errors.

Every command has a ``conf/<command>.yaml``. ``--cfg job`` prints what was composed instead of running.
"""

from collections.abc import Iterator, Sequence

from tandem_datasets.errors import TandemError, unknown

CONF_MODULE = "tandem_training.conf"


def parse(command: str, argv: Sequence[str], doc: str):
    """The composed DictConfig, or None if the arguments only asked for help or the configuration.

    Args:
        command: name of ``conf/<command>.yaml``.
        argv: ``key=value`` overrides, ``--cfg job``, ``--help``.
        doc: the command's help text.

    Raises:
        TandemError: an override names a key, group or option that does not exist, or a value is missing.
    """
    from omegaconf import OmegaConf

    arguments = list(argv)
    if "-h" in arguments or "--help" in arguments:
        print(f"usage: tandem {command} [key=value ...] [--cfg job]\n\n{doc.strip()}\n\nKeys and defaults:\n")
        print(OmegaConf.to_yaml(compose(command, [])))
        return None
    show = False
    if "--cfg" in arguments:
        at = arguments.index("--cfg")
        if arguments[at + 1 : at + 2] != ["job"]:
            raise TandemError(f"tandem {command}: --cfg takes 'job'")
        show = True
        del arguments[at : at + 2]
    config = compose(command, arguments)
    if show:
        print(OmegaConf.to_yaml(config), end="")
        return None
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        wanted = " ".join(f"{key}=..." for key in missing)
        raise TandemError(f"tandem {command}: missing {wanted}")
    return config


def compose(command: str, overrides: Sequence[str]):
    """The DictConfig of ``conf/<command>.yaml`` with overrides; see :func:`parse` for errors."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_module(CONF_MODULE, version_base="1.3"):
        try:
            config = hydra_compose(command, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise _explain(command, overrides, error) from error
    return config


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


def _explain(command: str, overrides: Sequence[str], error: Exception) -> TandemError:
    """One line that names the override at fault and the nearest allowed name."""
    from omegaconf import DictConfig, OmegaConf

    where = f"tandem {command}"
    keys: list[str] = []
    for override in overrides:
        name, sign, value = override.partition("=")
        if not sign:
            return TandemError(f"{where}: '{override}' is not of the form key=value")
        key = name.lstrip("+~")
        options = group_options(key)
        if options:
            if value not in options:
                return unknown(f"{where}: {key}", value, options)
            continue
        if not keys:
            keys = list(_flatten(compose(command, []))) if overrides else []
        if key not in keys and not name.startswith("+"):
            return unknown(where, key, keys + _groups(command))
        try:
            whole = compose(command, [])
            OmegaConf.update(whole, key, value, merge=True)
            assert isinstance(whole, DictConfig)
        except Exception as cause:
            return TandemError(f"{where}: {override}: {str(cause).splitlines()[0]}")
    return TandemError(f"{where}: {' '.join(str(error).split())[:300]}")


def _groups(command: str) -> list[str]:
    from importlib.resources import files

    return [item.name for item in files(CONF_MODULE).iterdir() if item.is_dir() and not item.name.startswith("_")]


def _flatten(config, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for key in config:
        name = f"{prefix}{key}"
        yield name
        if not config._is_missing(key) and isinstance(config._get_node(key), DictConfig):
            yield from _flatten(config[key], name + ".")
