"""Lets the tests import the modules of this folder, and of the folder `chaos`, that they share."""

from __future__ import annotations

import os
import sys

sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "chaos")]
