"""Model folders written: the official layout and names, which descant and transformers both read."""
