"""What Tandem must know of a type of LeRobot's: its names for a chunk's length, and how it hears an instruction."""

from dataclasses import dataclass
from typing import Any

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
    scratch: bool = False  # nothing of a fresh one is pretrained, large as it is
    fixed_names: tuple[str, ...] = ()  # what it takes from the hub by names that no option says


KINDS = {
    "act": Kind(embedding=ENVIRONMENT_STATE, masks=True),
    "diffusion": Kind("horizon", embedding=ENVIRONMENT_STATE, history=True, noise=""),
    "vqbet": Kind("action_chunk_size", embedding=STATE, history=True, queues=True, plays_all=True),
    "multi_task_dit": Kind("horizon", history=True, queues=True),
    "smolvla": Kind(noise="max_action_dim", masks=True),
    "pi0": Kind(noise="max_action_dim", fixed_names=("google/paligemma-3b-pt-224",), scratch=True),
    "eo1": Kind(),
}

# Not policies that imitate from chunks of actions (other losses, other data), and those that have the libraries below
# them run code that comes with a model (``trust_remote_code``).
UNFIT = ("gaussian_actor", "tdmpc", "groot", "pi0_fast", "wall_x")


def kind(policy: str) -> Kind:
    """What is known of a type; what most vision-language-action models are like, if nothing is."""
    return KINDS.get(policy, Kind())


def leaves_padding_out(of: Kind, settings: Any) -> bool:
    """Whether the loss of a policy is the mean over actions that are no padding; ``settings`` are LeRobot's config."""
    asked = getattr(settings, "do_mask_loss_for_padding", False)  # Diffusion, multi-task DiT
    return of.masks or asked or not getattr(settings, "supervise_padding_actions", True)  # EO-1


def is_random(of: Kind, settings: Any) -> bool:
    """Whether a fresh vision-language-action model of these settings has no pretrained backbone."""
    return of.scratch or not getattr(settings, "load_vlm_weights", True)
