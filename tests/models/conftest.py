"""Networks of full size cost minutes: MKL gets the setting that `ppv train` gives it, before anything uses MKL."""

from __future__ import annotations

import os

from ppvcli.engine.cpu import tune_math_library

tune_math_library(os.environ)
