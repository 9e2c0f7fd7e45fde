"""`python -m ppvcli` is `ppv`."""

import sys

from ppvcli.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
