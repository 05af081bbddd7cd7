"""`python -m pacx` is `pacx`."""

from pacx.cli import main

if __name__ == "__main__":  # the pages about the library import every module
    main()
