"""From a video file to the uint8 frames and float32 clips a network sees. No paddle in here."""
