"""From text in other charsets to UTF-8, piece by piece."""

import codecs
import re
from collections.abc import Iterator

from embedsvc.errors import BadRequest, UnsupportedBody
from embedsvc.wording.plain import shown

STEP = 128 << 10
"""How many bytes are decoded at once."""
CHARSETS = re.compile(
    r"utf-?(16|32)([-_]?[lb]e)?|latin-?1|iso-?8859-?\d+|(windows-?|cp)125\d|koi8-[ru]|gb18030|gbk"
    r"|gb2312|big5|shift[-_]?jis|euc-?(jp|kr)"
)
"""The charsets that are taken beside UTF-8. Python's other codecs are no charsets, or too slow."""
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The byte order marks of other encodings."""
LONGEST_MARK = 4


class Charset:
    """Decodes text in one charset."""

    def __init__(self, charset: str) -> None:
        """Raises `UnsupportedBody`."""
        try:
            if CHARSETS.fullmatch(charset) is None:
                raise LookupError
            self._decoder = codecs.getincrementaldecoder(charset)("strict")
        except LookupError:
            raise UnsupportedBody(f"its charset is '{shown(charset)}'") from None
        self._charset = charset

    def feed(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        try:
            for start in range(0, len(data), STEP):
                yield self._decoder.decode(data[start : start + STEP]).encode()
            if last:
                yield self._decoder.decode(b"", True).encode()
        except UnicodeDecodeError:
            raise BadRequest(
                f"The body of your request is not {self._charset}, as its headers say."
            ) from None


class Marked:
    """Decodes text that may begin with a byte order mark. UTF-8's is dropped, others are obeyed."""

    def __init__(self) -> None:
        self._kept = b""
        self._inner: Charset | None = None
        self._known = False

    def feed(self, data: bytes, *, last: bool) -> Iterator[bytes]:
        if not self._known:
            data = self._kept + data
            if len(data) < LONGEST_MARK and not last:
                self._kept = data
                return
            self._known = True
            charset = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
            self._inner = None if charset is None else Charset(charset)
            data = data.removeprefix(codecs.BOM_UTF8)
        if self._inner is None:
            yield data
        else:
            yield from self._inner.feed(data, last=last)
