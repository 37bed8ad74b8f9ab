"""The server on many GPUs and machines, as a Ray Serve deployment: docs/scaling.md, docs/serve.yaml."""
