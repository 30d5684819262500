"""Lets the tests import the modules of this folder that they share."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
