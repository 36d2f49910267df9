"""Benches: one module each with ``measure(config, out) -> list[Row]`` and a ``conf/bench_<name>.yaml``.

``tandem bench NAME`` finds them by their file name.
"""
