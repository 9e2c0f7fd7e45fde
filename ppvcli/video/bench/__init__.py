"""The comparison of video decoders behind `ppv bench-decode`."""
