"""Training: data, stages, the loop with exact resume, and recipes. It uses models, inputs and weights, never the engine."""
