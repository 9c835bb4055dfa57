"""``python -m jivs``."""

from jivs.cli.main import main

if __name__ == "__main__":
    main()
