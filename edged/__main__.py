"""`python -m edged` is `edged`."""

from edged.cli.app import main

if __name__ == "__main__":
    main()
