"""`python -m ilubench`, where no script is installed."""

from ilubench.cli import main

main()
