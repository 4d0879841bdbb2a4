"""`python -m ilubench.cli`, where no script is installed."""

from ilubench.cli import main

main()
