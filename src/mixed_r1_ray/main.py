"""The entry point: `python -m mixed_r1_ray.main conf=NAME [key=value …]`. Light until a run really starts."""

from __future__ import annotations

import os
import shlex
import sys
import traceback

from .errors import ConfigError, UserError
from .redaction import redact

EXIT_FAILED = 1
EXIT_BAD_CONFIG = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Runs what the command line asks for and returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        _dispatch(argv)
        sys.stdout.flush()
    except ConfigError as error:
        return _fail(f"{error}", EXIT_BAD_CONFIG)
    except UserError as error:
        # From an actor it arrives wrapped in Ray's, whose text is the remote traceback; the cause is ours.
        return _fail(f"{getattr(error, 'cause', None) or error}", EXIT_FAILED)
    except KeyboardInterrupt:
        words = [word for word in argv if not word.startswith("run.resume=")] + ["run.resume=auto"]
        resume = f"python -m mixed_r1_ray.main {shlex.join(words)}"
        return _fail(f"interrupted; continue from the newest checkpoint with: {resume}", EXIT_INTERRUPTED)
    except BrokenPipeError:  # `... | head` has read all it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception:
        print(redact(traceback.format_exc()), end="", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _dispatch(argv: list[str]) -> None:
    from .config_load import load_config, parse_command_line

    command = parse_command_line(argv)
    if command.help:
        from .config_fields import help_text

        print(help_text())
        return
    config = load_config(argv)
    if command.dry_run:
        from .dry_run import dry_run

        dry_run(config)
        return

    from .environment import prepare_environment
    from .interrupt import catch_interrupts

    prepare_environment(config)
    catch_interrupts()
    from .driver import run

    run(config)


def _fail(message: str, code: int) -> int:
    print(redact(f"error: {message}"), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
