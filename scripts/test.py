"""Set everything up and run the tests of all packages: ``python3 scripts/test.py [pytest arguments]``.

Without arguments, as many tests run at a time as the machine has cores; with arguments, whatever those say.
"""

import sys

import _setup

if __name__ == "__main__":
    python = _setup.prepare(_setup.TEST_REQUIREMENTS)
    # Two processes, a file at a time: most tests wait for something, and those of one file share ports and fixtures.
    arguments = sys.argv[1:] or ["-n", "2", "--dist", "loadfile"]
    sys.exit(_setup.run([python, "-m", "pytest"] + arguments))
