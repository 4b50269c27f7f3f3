"""Which models there are, and by what names: the cards, and the file that people write them in."""
