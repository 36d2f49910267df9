"""Try a policy: type an instruction, watch it act, see where it looks.

    tandem try policy=outputs/nano/best env=blockfind
    tandem try policy=outputs/nano/best instruction="find the red block" view=picture out=try.png

In a window or a terminal you type, scene after scene. Without either, or with view=picture, a picture is written:
a row per instruction, with the image of each step, dimmed where the policy does not look.
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    config = parse("try", argv, __doc__)
    if config is None:
        return 0
    import tandem_policies
    from tandem_sim.trying import Tryout, converse
    from tandem_training.config import env_spec
    from tandem_training.trying import VIEWS, instructions, look_of, picture_path, write_picture
    from tandem_training.validate import at_least
    from tandem_training.views import open_view

    where = "tandem try"
    at_least(where, seed=(config.seed, 0), threads=(config.threads, 1))
    asked = instructions(config.instruction, where)
    view = open_view(config.view, where, VIEWS)
    target = picture_path(config.out, str(config.policy), where) if view is None else None
    policy = tandem_policies.load(str(config.policy), device=config.device, threads=config.threads)
    with Tryout(env_spec(config), policy, look_of(policy)) as tryout:
        if target is not None:
            verdicts = write_picture(tryout, config.seed, asked, target)
            print("\n".join(f"{words}: {verdict}" for words, verdict in verdicts.items()))
            print(f"written to {target}")
        elif view is not None:
            with view:
                trials = converse(tryout, view, config.seed, asked)
            print(f"{trials} trials" if trials != 1 else "1 trial")
    return 0
