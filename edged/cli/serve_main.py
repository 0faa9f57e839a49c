"""`python -m edged.cli.serve_main [name=value ...]`: the daemon without the command line around it.

`edged serve` reads its flags and becomes this process, which never imports typer or rich: they would stay in memory for
as long as the box is up. `name` is a setting's, `config` is the settings file; `die_with_parent=1` is for private
daemons, which must not outlive the command that started them.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from edged.config import Settings, load
from edged.daemon import run
from edged.errors import EdgedError

OWNER_ERROR = 1
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Exit status: that of the daemon, 1 for what the owner must mend (78 under a service manager)."""
    flags = dict(argument.split("=", 1) for argument in arguments)
    config = flags.pop("config", "")
    if flags.pop("die_with_parent", "") == "1":
        _die_with_parent()

    def read() -> Settings:
        return load(flags, Path(config) if config else None)[0]

    try:
        return run(read(), reload=read)
    except EdgedError as error:
        print(f"edged: {error}", file=sys.stderr)
        return os.EX_CONFIG if os.environ.get("NOTIFY_SOCKET") else OWNER_ERROR  # the unit does not restart on it
    except KeyboardInterrupt:
        return 130


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
