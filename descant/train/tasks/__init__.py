"""What a stage of a recipe trains: the Thinker, the Talker, the encoders, the codec, the DiT, the vocoder."""
