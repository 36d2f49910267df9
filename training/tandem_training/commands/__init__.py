"""One module per ``tandem`` subcommand: a docstring whose first line is its help, and ``main(argv) -> int``.

Modules here import nothing heavy at the top, so that ``tandem --help`` stays quick.
"""
