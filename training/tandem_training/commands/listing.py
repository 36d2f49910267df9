"""List environments, policies, stages, presets, backends and commands.

tandem list
tandem list json=true
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse
    from tandem_training.inventory import print_inventory, take_inventory

    config = parse("list", argv, __doc__ or "")
    if config is None:
        return 0
    inventory = take_inventory()
    if config.json:
        import json

        print(json.dumps(inventory, indent=2))
    else:
        print_inventory(inventory)
    return 0
