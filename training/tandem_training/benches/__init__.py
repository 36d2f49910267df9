"""Benches: one module each with ``TARGETS``, ``measure(config, wanted) -> list[Row]`` and a ``conf/bench_<name>.yaml``.

``tandem bench NAME`` finds them by their file name.
"""
