"""Texts of many kinds, short and long, on which models and tokenisers are tried."""

TEXTS = (
    "hello",
    "A cat sat on the mat.",
    "How do I reset my password?",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)",
    "Die Straße war nass, weil es die ganze Nacht geregnet hatte.",
    "¿Dónde está la estación de tren más cercana?",
    "猫が窓のそばで眠っている。",
    "Мой брат чинит старые ёлочные игрушки.",
    "القطة نائمة بجانب النافذة",
    "Prices rose 3.5% in Q2 2024 (from $1,204.50 to $1,246.66); see https://example.org/a?b=c.",
    "  spaces   around, a tab\tand a line\nbreak  ",
    "🙂 emoji, ﬁ ligature, ÅNGSTRÖM, naïve café",
    "one two three four five six seven eight nine ten " * 5,
    "Embedding models map a text to a vector so that texts of like meaning lie close together. "
    * 10,
)
