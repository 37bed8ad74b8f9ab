"""The tasks of a recipe's stages: the Thinker, the Talker, the encoders, the codec, the DiT, the vocoder."""
