"""Train a policy from recorded episodes.

    tandem train data=outputs/demos.zarr out=outputs/nano
    tandem train data='[a.zarr,b.zarr]' policy=tinyvla/nano preset=demo trainer.max_steps=800
    tandem train data=outputs/demos.zarr out=outputs/nano resume=true

Writes the policy directories best and final, the resume folder last, config.yaml, metrics.json, history.jsonl and
TensorBoard scalars to out. Ctrl-C writes last and stops; after it, or after a crash, resume=true goes on exactly.
Several GPUs or machines: accelerate launch -m tandem_training.cli train key=value ...
"""


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    config = parse("train", argv, __doc__)
    if config is None:
        return 0
    import psutil

    from tandem_training.train import run

    run(config, psutil.Process().create_time())
    return 0
