"""Bytes and messages -> Prompt: the door, decoders, tokenizer, chat template, layout."""
