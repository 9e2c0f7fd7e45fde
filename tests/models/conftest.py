"""Networks at full size take minutes of CPU time: MKL gets the setting that `ppv train` gives it, before its first use."""

from __future__ import annotations

import os

from ppvcli.engine.cpu import tune_math_library

tune_math_library(os.environ)
