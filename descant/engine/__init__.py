"""Time: one request from its prompt to its last sample (``admit -> think -> talk -> decode -> emit``)."""
