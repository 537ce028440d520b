"""Audio and text encoders: each returns token states with the mask of the valid ones."""
