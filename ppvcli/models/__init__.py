"""Networks, one file each, and `zoo.py`, the table of published checkpoints (which needs no paddle)."""
