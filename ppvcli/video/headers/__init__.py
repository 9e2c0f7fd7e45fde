"""The headers of coded video, read without decoding: the order of frames, and which pictures depend on which."""
