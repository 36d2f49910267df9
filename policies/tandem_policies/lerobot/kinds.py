"""What Tandem must know of a type of LeRobot's: its names for a chunk's length, and how it hears an instruction."""

from dataclasses import dataclass

ENVIRONMENT_STATE, STATE = "observation.environment_state", "observation.state"


@dataclass(frozen=True)
class Kind:
    """Where LeRobot's policy types differ."""

    chunk: str = "chunk_size"  # the field of a chunk's length; "horizon" counts from the oldest observation on
    embedding: str | None = None  # where the instruction's embedding goes; None: the policy reads the text itself
    history: bool = False  # its observations have a time axis, even of one step
    queues: bool = False  # its predictions look at its own queues of observations
    noise: str | None = None  # the config's field of the width of the noise that its predictions take; "": the action's
    masks: bool = False  # padded actions count for nothing in its loss; others have an option for it, or none
    plays_all: bool = False  # always plays its whole chunk
    fixed_names: tuple[str, ...] = ()  # what it takes from the hub by names that no option says


KINDS = {
    "act": Kind(embedding=ENVIRONMENT_STATE, masks=True),
    "diffusion": Kind("horizon", embedding=ENVIRONMENT_STATE, history=True, noise=""),
    "vqbet": Kind("action_chunk_size", embedding=STATE, history=True, queues=True, plays_all=True),
    "multi_task_dit": Kind("horizon", history=True, queues=True),
    "smolvla": Kind(noise="max_action_dim", masks=True),
    "pi0": Kind(noise="max_action_dim", fixed_names=("google/paligemma-3b-pt-224",)),
    "eo1": Kind(),
}

# Not policies that imitate from chunks of actions: other losses, other data.
UNFIT = ("gaussian_actor", "tdmpc")


def kind(policy: str) -> Kind:
    """What is known of a type; what most vision-language-action models are like, if nothing is."""
    return KINDS.get(policy, Kind())
