"""`python -m tfbatch`."""

from tfbatch.cli import main

main()
