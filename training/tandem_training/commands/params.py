"""Count a policy's parameters: its parts, what of them is trained, and the memory that they take.

    tandem params policy=tinyvla/large
    tandem params policy=tinyvla/medium policy.vision_backbone=google/siglip-base-patch16-224 policy.vision_tuning=lora
    tandem params policy=outputs/nano/best depth=3 json=true

A new policy (an option of the group `policy`) is outlined for env=..., a stored one (a directory) for its own robot.
No weights are made or read, so that the largest ones take no memory; of a backbone by name only its small
configuration is fetched.
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse
    from tandem_training.parameters import WHERE, describe, print_description, split
    from tandem_training.validate import at_least

    arguments, directory = split(argv)
    config = parse("params", arguments, __doc__ or "")
    if config is None:
        return 0
    at_least(WHERE, depth=(config.depth, 1))
    facts = describe(config, directory)
    if config.json:
        import json

        print(json.dumps(facts, indent=2))
    else:
        print_description(facts)
    return 0
