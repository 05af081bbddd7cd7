"""`python -m pacx` is `pacx`."""

from pacx.cli import main

main()
