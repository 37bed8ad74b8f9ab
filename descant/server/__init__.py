"""The HTTP server: the protocols that people's tools speak, over one ``Omni``. It computes nothing of the model."""
