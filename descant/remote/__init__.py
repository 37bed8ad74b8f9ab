"""A client of any OpenAI-compatible server: what ``descant chat --url`` and ``descant bench --url`` speak through."""
