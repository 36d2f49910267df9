"""Train a policy from recorded episodes.

    tandem train data=outputs/demos.zarr out=outputs/nano
    tandem train data='[a.zarr,b.zarr]' policy=tinyvla/nano preset=demo trainer.max_steps=800
    tandem train --resume                                  # the newest unfinished one in outputs/train
    tandem train --resume out=outputs/nano                 # that one
    tandem train init=outputs/nano/best data=new.zarr      # fine-tune a policy
    tandem train --multirun trainer.lr=1e-3,3e-3 seed=0,1 data=outputs/demos.zarr      # (-m) every combination

Writes the policy directories best and final, the resume folder last, config.yaml, metrics.json, history.jsonl,
pictures and TensorBoard curves to out. Ctrl-C writes last and stops; after it, or after a crash, --resume goes on
exactly (resume=true with the same arguments, too). A sweep writes a training per job, sweep.json and sweep.csv to
outputs/multirun/<time>; exit status 1 if a job failed. training/README.md says what each key does.
Several GPUs or machines: accelerate launch -m tandem_training.cli train key=value ...
"""

_RESUME, _SWEEP = ("--resume",), ("--multirun", "-m")


def main(argv: list[str]) -> int:
    from tandem_training.config import parse

    overrides = [text for text in argv if text not in (*_RESUME, *_SWEEP)]
    resume, sweep = (any(text in flags for text in argv) for flags in (_RESUME, _SWEEP))
    if sweep and not {"-h", "--help"} & set(argv):
        return _sweep(overrides, resume)
    if resume:
        from tandem_training.resuming import resumed_config

        config = resumed_config(overrides, __doc__ or "")
    else:
        config = parse("train", overrides, __doc__ or "")
    if config is None:
        return 0
    import psutil

    from tandem_training.initial import check_chosen
    from tandem_training.train import run

    check_chosen(config, overrides)
    run(config, psutil.Process().create_time(), again="tandem train --resume", overrides=overrides)
    return 0


def _sweep(overrides: list[str], resume: bool) -> int:
    from tandem_datasets.errors import TandemError
    from tandem_training.sweep import sweep

    if resume:
        raise TandemError("tandem train: --multirun with --resume (allowed: --resume out=<the folder of one job>)")
    return sweep(overrides)
