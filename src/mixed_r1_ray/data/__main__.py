"""`python -m mixed_r1_ray.data COMMAND …`: the data engine. Each command is imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mixed_r1_ray.errors import UserError
from mixed_r1_ray.interrupt import catch_interrupts

EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130
# command -> module with `main(argv) -> int`, and what it does
COMMANDS = {
    "convert": ("converting", "a public dataset, or your own rows, into records"),
    "check": ("checking", "every record; --drop writes those without fault"),
    "select": ("selecting", "which records to train on: no copies, no evaluation data, neither easy nor hopeless"),
    "mix": ("mixing", "records of many sources into one mixture, by quotas"),
    "show": ("show", "records as a page: pictures, questions, gold answers"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: that of the command; 2 where its arguments or files are no use."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else EXIT_UNUSABLE
    command, *rest = words
    if command not in COMMANDS:
        print(f"error: {command}: no such command\n{_usage()}", file=sys.stderr)
        return EXIT_UNUSABLE
    try:
        return import_module(f"mixed_r1_ray.data.{COMMANDS[command][0]}").main(rest) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; finished shards are kept, the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED


def _usage() -> str:
    lines = [f"  {name:<9} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: python -m mixed_r1_ray.data COMMAND …  (COMMAND --help says more)", *lines])


if __name__ == "__main__":
    catch_interrupts()  # SIGTERM too ends what was started
    sys.exit(main())
