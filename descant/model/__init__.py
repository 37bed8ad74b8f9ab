"""The parts of the model. Every module is pure: tensors and state in, tensors and state out."""
