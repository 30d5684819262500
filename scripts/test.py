"""Set everything up and run the tests of all packages: ``python3 scripts/test.py [pytest arguments]``."""

import sys

import _setup

if __name__ == "__main__":
    python = _setup.prepare(_setup.TEST_REQUIREMENTS)
    sys.exit(_setup.run([python, "-m", "pytest"] + sys.argv[1:]))
