"""Codes of languages: which spellings of raw data name one language, and what hbtrain calls it.

hbtrain's code is that of ISO 639-1 where there is one, else that of ISO 639-3 (`de`, `yue`), with the region where the
data name one (`pt-BR`), and with the script only where a data set has a language in several (`zh-Hant`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache

NAMES = {
    "arabic": "ar",
    "bengali": "bn",
    "chinese": "zh",
    "dutch": "nl",
    "english": "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "hausa": "ha",
    "hindi": "hi",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "persian": "fa",
    "portuguese": "pt",
    "russian": "ru",
    "somali": "so",
    "spanish": "es",
    "swahili": "sw",
    "telugu": "te",
    "thai": "th",
    "vietnamese": "vi",
    "yoruba": "yo",
}
"""{English name: code}; mMARCO, Mr. TyDi and CIRAL name their files and folders by the former."""

_TWO_LETTERS = """
aa:aar ab:abk ae:ave af:afr ak:aka,twi am:amh an:arg ar:ara,arb as:asm av:ava ay:aym,ayr az:aze,azj ba:bak be:bel
bg:bul bh:bih bi:bis bm:bam bn:ben bo:bod br:bre bs:bos ca:cat ce:che ch:cha co:cos cr:cre cs:ces cu:chu cv:chv cy:cym
da:dan de:deu dv:div dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est,ekk eu:eus fa:fas,pes ff:ful,fuv fi:fin fj:fij
fo:fao fr:fra fy:fry ga:gle gd:gla gl:glg gn:grn gu:guj gv:glv ha:hau he:heb,iw hi:hin ho:hmo hr:hrv ht:hat hu:hun
hy:hye hz:her ia:ina id:ind ie:ile ig:ibo ii:iii ik:ipk io:ido is:isl it:ita iu:iku ja:jpn jv:jav,jw ka:kat kg:kon
ki:kik kj:kua kk:kaz kl:kal km:khm kn:kan ko:kor kr:kau,knc ks:kas ku:kur,kmr kv:kom kw:cor ky:kir la:lat lb:ltz
lg:lug li:lim ln:lin lo:lao lt:lit lu:lub lv:lav,lvs mg:mlg,plt mh:mah mi:mri mk:mkd ml:mal mn:mon,khk mr:mar
ms:msa,zsm mt:mlt my:mya nd:nde ne:nep,npi ng:ndo nl:nld nn:nno no:nor,nob,nb nr:nbl nv:nav ny:nya oc:oci oj:oji
om:orm,gaz or:ori,ory os:oss pa:pan pi:pli pl:pol ps:pus,pbt pt:por qu:que,quy rm:roh rn:run ro:ron ru:rus rw:kin
sa:san sc:srd sd:snd se:sme sg:sag si:sin sk:slk sl:slv sm:smo sn:sna so:som sq:sqi,als sr:srp ss:ssw st:sot su:sun
sv:swe sw:swa,swh ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk tl:tgl,fil tn:tsn to:ton tr:tur ts:tso tt:tat ty:tah
ug:uig uk:ukr ur:urd uz:uzb,uzn ve:ven vi:vie vo:vol wa:wln wo:wol xh:xho yi:yid,ydd yo:yor za:zha zh:zho,cmn zu:zul
"""
"""Codes of ISO 639-1, each with those of ISO 639-3 that mean the same: the language's own, and, where that is a group
of languages, the standard one of it (`arb`, `cmn`, `swh`), but not other members, such as Egyptian Arabic (`arz`).
Older codes and Bokmål, which data call Norwegian, stand beside them."""

ROMANISED = ("ar", "bn", "hi", "ne", "si", "ur")
"""Languages that some sets have in Latin letters as well (`hi-Latn`), which are then another language to a model."""
_CODES = {
    long: short
    for entry in _TWO_LETTERS.split()
    for short, _, longer in [entry.partition(":")]
    for long in longer.split(",")
}
_KNOWN = {*_CODES, *_CODES.values()}
_PART = re.compile(r"[_-]")


@cache
def code_of(spelling: str) -> str:
    """hbtrain's code, with region and script, of a spelling such as `swahili`, `deu`, `deu_Latn`, `zh_cn` or `pt-BR`.
    A spelling that is not known stays as it is, but for capitals and underscores of its suffixes.
    """
    first, *suffixes = _PART.split(spelling)
    first = NAMES.get(first.lower(), first)
    return "-".join([_CODES.get(first.lower(), first), *map(_suffix, suffixes)])


def same_language(one: str, other: str) -> bool:
    """Whether two spellings name one language. A script counts only where both name one, or where a language is
    `ROMANISED`; a region always does.
    """
    (one, *ours), (other, *others) = code_of(one).split("-"), code_of(other).split("-")
    if one != other or [x for x in ours if not _is_script(x)] != [x for x in others if not _is_script(x)]:
        return False
    scripts = [next(filter(_is_script, suffixes), None) for suffixes in (ours, others)]
    return scripts[0] == scripts[1] or (None in scripts and not (one in ROMANISED and "Latn" in scripts))


def is_among(language: str, others: Iterable[str]) -> bool:
    """Whether one of `others` names the same language."""
    return any(same_language(language, other) for other in others)


def codes_of(spellings: Iterable[str], two_scripts: Iterable[str] = ()) -> dict[str, str]:
    """{spelling: hbtrain's code} of the languages of a data set. A script is part of the code only where the set has
    the language in several, or if it is one of `two_scripts`, codes of languages that the whole set has in several.
    """
    codes = {spelling: code_of(spelling) for spelling in spellings}
    plain = {spelling: _without_script(code) for spelling, code in codes.items()}
    counts, kept = Counter(plain.values()), set(two_scripts)
    return {x: code if counts[plain[x]] > 1 or plain[x] in kept else plain[x] for x, code in codes.items()}


def is_known(spelling: str) -> bool:
    """Whether a spelling is a code of ISO 639-1 or one that means the same, an English name listed here, or a code with
    a script: what a word such as `dev` or `all` is not.
    """
    first, *suffixes = _PART.split(spelling)
    return first.lower() in NAMES or first in _KNOWN or any(map(_is_script, map(_suffix, suffixes)))


def pair_of(spelling: str) -> tuple[str, str] | None:
    """The two sides of a pair of languages such as `zho-ara` or `deu_Latn-eng_Latn`; None: it is no pair."""
    sides = spelling.split("-")
    if len(sides) == 2 and all(re.fullmatch(r"[a-z]{3}(?:_[A-Z][a-z]{3})?", side) for side in sides):
        return sides[0], sides[1]
    return None


def _suffix(text: str) -> str:
    """A suffix as it is written: a script as `Latn`, a region as `BR`."""
    return text.title() if len(text) == 4 and text.isalpha() else text.upper() if len(text) == 2 else text


def _is_script(suffix: str) -> bool:
    return len(suffix) == 4 and suffix.isalpha()


def _without_script(code: str) -> str:
    return "-".join(part for place, part in enumerate(code.split("-")) if not place or not _is_script(part))
