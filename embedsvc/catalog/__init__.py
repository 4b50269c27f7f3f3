"""What models there are, by what names: the cards, and the file that people write them in."""
