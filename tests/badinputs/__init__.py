"""Requests that make no sense, as data, and the runner that sends them to any server of OpenAI's protocol."""
