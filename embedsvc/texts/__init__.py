"""From what a request asks for to token ids."""
