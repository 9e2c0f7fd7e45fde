"""Networks at work: prediction on video files. Nothing heavy is imported here."""

DEFAULT_MODEL = "pptsmv2"
"""The model of `predict` where none is named."""
