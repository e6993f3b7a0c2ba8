"""`python -m release_platform` is the command line `release`."""

from release_platform.cli import main

main()
