"""nano's curriculum: what it is taught, and how the pictures, sounds, videos and voices of its lessons are made.

It uses the trainer; neither the trainer nor the tasks' formulas need it, but the tasks draw their examples from it.
"""
