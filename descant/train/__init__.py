"""Training: data, stages, the loop with exact resume, recipes. It uses models, inputs and weights, not the engine."""
