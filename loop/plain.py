"""Text in the one form in which answers and checks read it, whatever script it was written in.

Full-width digits and signs become the keyboard's (NFKC), powers and fractions of a single character are spelled out,
and Japanese numerals and percent words become digits.
"""

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal

JAPANESE = "\u3040-\u30ff\u3400-\u9fff"
"""Kana and Chinese characters, for a character class."""
SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
POWER = re.compile(rf"\u207b?[{SUPERSCRIPTS}]+")
FRACTION = re.compile(r"(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e])")
CIRCLED = re.compile(r"[\u2460-\u2473]")
DIGITS = "\u3007\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d"
"""0 to 9 as Chinese characters."""
SMALL: Mapping[str, int] = {"十": 10, "百": 100, "千": 1000}
LARGE: Mapping[str, int] = {"万": 10**4, "億": 10**8, "兆": 10**12}
COUNTED = (
    "円|個|人|本|枚|冊|台|匹|頭|羽|回|日|時|分|秒|年|週|か月|ヶ月|カ月|メートル|センチ|キロ|グラム|リットル|ページ|点|倍|"
    "割(?![るりれっ合])|パーセント|%|歳|杯|箱|袋|つ|足す|引く|掛ける|割る"
)
"""What makes a number of a Chinese character that may also be a part of a word."""
NUMERAL = re.compile(
    rf"(?P<mixed>(?<![0-9.,])[0-9]{{1,9}}(?:,[0-9]{{3}}){{0,3}}(?:\.[0-9]{{1,9}})?(?:[十百千万億兆][0-9{DIGITS}]{{0,4}})"
    rf"{{1,8}})|(?!十分(?!間|後|前))(?P<pure>[{DIGITS}十百千万億兆]{{1,20}})(?P<counted>(?={COUNTED}))?"
)
PLACES = re.compile("[〇十百千]")
TENTHS = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?割(?: ?([0-9]) ?分)?(?![るりれっ合])")
BOUNDARY = re.compile(rf"(?<=[0-9%)])(?=[{JAPANESE}])|(?<=[{JAPANESE}])(?=[0-9(%$\u00a5])")


def storable(text: str) -> str:
    """The text without what no database stores: zero bytes and halves of characters."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def plain(text: str) -> str:
    """The text in the keyboard's digits and signs; what is ASCII already stays as it is."""
    if text.isascii():
        return text
    text = POWER.sub(_power, FRACTION.sub(" ", text))
    text = CIRCLED.sub(lambda match: f"({unicodedata.normalize('NFKC', match[0])}) ", text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
    return _japanese(text) if re.search(f"[{JAPANESE}]", text) else text


def _power(match: re.Match[str]) -> str:
    digits = "".join(str(SUPERSCRIPTS.index(each)) for each in match[0].lstrip("\u207b"))
    return f"^-{digits}" if match[0][0] == "\u207b" else f"^{digits}"


def _japanese(text: str) -> str:
    """Digits for numerals and percent signs for their words, with a blank wherever a number meets a word."""
    text = NUMERAL.sub(_numeral, text).replace("パーセント", "%")
    text = TENTHS.sub(lambda match: f"{_written(Decimal(match[1]) * 10 + int(match[2] or 0))}%", text)
    return BOUNDARY.sub(" ", text)


def _numeral(match: re.Match[str]) -> str:
    """A numeral in digits; characters that may be part of a word only where something is counted."""
    pure = match["pure"]
    if pure and match["counted"] is None and not (PLACES.search(pure) and any(each in DIGITS for each in pure)):
        return match[0]
    return _written(_value(match["mixed"] or pure))


def _value(numeral: str) -> Decimal:
    """The value of digits and Chinese characters in any mixture, such as 3万5千 and 二百五十."""
    total = section = Decimal(0)
    digits = ""
    for each in numeral.replace(",", ""):
        if each in SMALL:
            section += Decimal(digits or 1) * SMALL[each]
            digits = ""
        elif each in LARGE:
            total += ((section + Decimal(digits or 0)) or 1) * LARGE[each]
            section, digits = Decimal(0), ""
        else:
            digits += str(DIGITS.index(each)) if each in DIGITS else each
    return total + section + Decimal(digits or 0)


def _written(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
