"""From a card to a checkpoint's files: where they are, and what they say."""
