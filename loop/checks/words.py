"""Words that matter when arithmetic stands in prose."""

import re
from collections.abc import Mapping
from fractions import Fraction

from loop.plain import JAPANESE, plain

PIECE = re.compile(rf"[0-9]+(?:[.,][0-9]+)*|[{JAPANESE}]|[^\W\d_]+")
"""A number, a word, or a single character of Japanese, which has no blanks between words."""


def pieces(text: str) -> list[str]:
    """The words and numbers of a text, folded."""
    return PIECE.findall(plain(text).casefold())


def word_set(text: str) -> frozenset[str]:
    """The words of a text, each once."""
    return frozenset(text.split())


CLAUSES = word_set("and so then if but or because which while when than mod is are was gives makes leaves x")
"""Words that end a unit: what follows belongs to another clause."""
DETERMINERS = word_set("the these those his her their its all a")
UNIT_LETTERS = word_set("g m l h s a")
"""Single letters that may stand behind a number; all others are variables."""
ABOUT = word_set("≈ about approximately approx roughly around nearly almost rounded ~ 約 およそ ほぼ")
LEADING = ABOUT | word_set("a total of the exactly just only 合計 全部で ちょうど")
"""Words between a relation and the right side."""
COMPARED = word_set(
    "more less fewer times greater larger smaller percent away out short over under than too older younger"
)
"""Words after which a right side is no result, as in `5 - 3 is 2 less than 4`."""
SHADOWS = word_set(
    "twice double triple thrice half third quarter root sqrt log sin cos tan mod modulo average mean dozen dozens "
    "hundred thousand thousands million millions billion k score scores remainder r squared cubed max min gcd lcm "
    "full whole complete 余り あまり 半分 ダース 平均"
)
"""Words that change a value beside the signs; a failing equation with one of them is not judged."""
FAMILIES: Mapping[str, frozenset[str]] = {
    "time": word_set("second minute hour day week month year 秒 分 時間 日 週間 か月 年"),
    "length": word_set("mm cm m meter metre km inch inches foot feet yard mile センチ メートル キロメートル"),
    "weight": word_set("mg g gram kg kilogram ounce pound ton グラム キログラム トン"),
    "volume": word_set("ml l liter litre cup pint quart gallon ミリリットル デシリットル リットル"),
    "money": word_set("cent ¢ $ dollar penny pennies nickel dime quarter"),
}
"""Units by what they measure; a failing equation between two units of a family is a conversion, not a mistake."""
UNITS: Mapping[str, str] = {
    word: name
    for name, words in {
        "second": "s sec secs second seconds 秒",
        "minute": "min mins minute minutes 分",
        "hour": "h hr hrs hour hours 時間",
        "day": "day days 日",
        "week": "week weeks 週間",
        "month": "month months か月",
        "year": "year years yr yrs 年",
        "decade": "decade decades",
        "century": "century centuries",
        "mm": "mm millimeter millimeters millimetre millimetres ミリメートル",
        "cm": "cm centimeter centimeters centimetre centimetres センチ センチメートル",
        "m": "m meter meters metre metres メートル",
        "km": "km kilometer kilometers kilometre kilometres キロメートル",
        "inch": "inch inches",
        "foot": "ft foot feet",
        "yard": "yard yards yd",
        "mile": "mile miles",
        "mg": "mg milligram milligrams ミリグラム",
        "g": "g gram grams グラム",
        "kg": "kg kgs kilogram kilograms キログラム",
        "tonne": "tonne tonnes トン",
        "ounce": "oz ounce ounces",
        "pound": "lb lbs pound pounds",
        "ml": "ml milliliter milliliters millilitre millilitres ミリリットル",
        "dl": "dl デシリットル",
        "l": "l liter liters litre litres リットル",
        "cup": "cup cups",
        "pint": "pint pints",
        "quart": "quart quarts",
        "gallon": "gallon gallons",
        "dollar": "dollar dollars",
        "coin_cent": "cent cents ¢ penny pennies",
        "nickel": "nickel nickels",
        "dime": "dime dimes",
    }.items()
    for word in words.split()
}
"""Everyday units by the words for them; a ton is left out, because there are three."""
_PAIRS = (
    "more/less more/fewer before/after above/below increases/decreases increase/decrease all/none always/never "
    "indoors/outdoors inside/outside same/different left/right older/younger taller/shorter oldest/newest most/least "
    "highest/lowest larger/smaller greater/less true/false day/night up/down man/woman boy/girl men/women "
    "implies/excludes"
)
OPPOSITES: Mapping[str, frozenset[str]] = {
    word: frozenset(
        other for pair in _PAIRS.split() for one, other in (pair.split("/"), pair.split("/")[::-1]) if one == word
    )
    for word in re.split("[/ ]", _PAIRS)
}
"""Words of which a clause that has one denies what it says with the other."""

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "fourth fifth sixth seventh eighth ninth tenth"
_OTHERS: Mapping[str, tuple[Fraction | int, ...]] = {
    "hundred": (100,),
    "thousand": (1000,),
    "million": (10**6,),
    "dozen": (12,),
    "score": (20,),
    "couple": (2,),
    "pair": (2,),
    "both": (2,),
    "once": (1,),
    "twice": (2,),
    "double": (2,),
    "thrice": (3,),
    "triple": (3,),
    "twin": (2,),
    "half": (Fraction(1, 2), 2, 50),
    "halves": (Fraction(1, 2), 2),
    "third": (Fraction(1, 3), 3),
    "quarter": (Fraction(1, 4), 4, 25),
    "nickel": (5,),
    "dime": (10,),
    "cent": (100,),
    "minute": (60,),
    "hour": (60, 24),
    "day": (24, 7, 30, 365),
    "weekend": (2,),
    "weekday": (5,),
    "week": (7, 52, 4),
    "month": (12, 30, 4),
    "year": (12, 365, 52),
    "foot": (12,),
    "feet": (12, 3),
    "inch": (12,),
    "yard": (3,),
    "半": (Fraction(1, 2), 2),
    "ダース": (12,),
    "時間": (60, 24),
    "分": (60,),
    "日": (24, 7, 30, 365),
    "週": (7, 52, 4),
    "か月": (12, 30, 4),
    "年": (12, 365, 52),
    "両方": (2,),
}
"""What else brings a number into a text: shares, multiples, and units with their usual factors."""


JAPANESE_WORDS = tuple(word for word in _OTHERS if not word.isascii())
"""Those to be looked for inside of a text, which has no blanks around them."""


def values(word: str) -> tuple[Fraction, ...]:
    """The numbers that a word, or its plural, may stand for."""
    for form in (word, word.removesuffix("s"), word.removesuffix("ly")):
        if form in VALUES:
            return VALUES[form]
    return ()


VALUES: Mapping[str, tuple[Fraction, ...]] = {
    **{word: (Fraction(number),) for number, word in enumerate(_SMALL.split())},
    **{word: (Fraction(number),) for number, word in zip(range(30, 100, 10), _TENS.split(), strict=True)},
    **{word: (Fraction(1, number), Fraction(number)) for number, word in enumerate(_ORDINALS.split(), start=4)},
    **{word: tuple(Fraction(number) for number in numbers) for word, numbers in _OTHERS.items()},
}
