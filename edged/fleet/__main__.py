"""`edged-fleet`: the commands, or one line that says what to install for them."""

from __future__ import annotations

import sys


def main() -> None:
    """Console entry."""
    try:
        from edged.fleet.commands import main as run
    except ModuleNotFoundError as error:
        print(f"edged-fleet: {error.name} is missing: pip install 'edged[fleet]'", file=sys.stderr)
        sys.exit(1)
    run()


if __name__ == "__main__":
    main()
