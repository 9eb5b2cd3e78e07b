"""`mav`, and `python -m openmav`: Ctrl-C ends them without a traceback from the first import on."""

import sys


def main() -> int:
    """The exit code of the command with the arguments of this process."""
    try:
        from openmav.cli.main import main as run
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
