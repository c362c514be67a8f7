"""`python -m ioflusher` is the `ioflusher` program."""

from ioflusher.cli.main import main

main()
