"""`python -m peerwatch`."""

from peerwatch.runtime.cli import main

main()
