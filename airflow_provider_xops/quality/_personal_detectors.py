"""What looks like personal data: by the shape of values, and by the names of columns.

Private to :mod:`airflow_provider_xops.quality.personal_data`. Patterns are RE2 (DuckDB's), and where a kind
of number has a check digit it is computed: a random number of the right length is not a card.

Sources: cards ISO/IEC 7812-1 (Luhn) with the issuers' prefixes; IBAN ISO 13616 (mod 97); US social security
numbers by the SSA's rules of what is never assigned; DNI and NIE (mod 23), NIR (97 minus mod 97), NINO by the
formats of their issuers; telephone numbers ITU-T E.164.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MACROS", "NAME_RULES", "VALUE_DETECTORS", "NameRule", "ValueDetector", "kind_by_name", "words_of"]

TEXT, NUMBER, DATE = "text", "number", "date"

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX = r"[0-9A-Fa-f]{1,4}"

# Digits of a text; the remainder of Luhn's sum; of the number that ISO 13616 makes of an IBAN.
MACROS = (
    "CREATE MACRO xops_digits(t) AS regexp_replace(t, '[^0-9]', '', 'g')",
    """CREATE MACRO xops_luhn(t) AS list_sum(list_transform(string_split(reverse(t), ''), lambda c, i:
        CASE WHEN i % 2 = 1 THEN CAST(c AS INTEGER)
             WHEN CAST(c AS INTEGER) > 4 THEN 2 * CAST(c AS INTEGER) - 9
             ELSE 2 * CAST(c AS INTEGER) END)) % 10""",
    """CREATE MACRO xops_iban(t) AS list_reduce(list_prepend(0, list_transform(
        string_split(substr(t, 5) || substr(t, 1, 4), ''),
        lambda c: CASE WHEN c BETWEEN '0' AND '9' THEN ascii(c) - 48 ELSE ascii(c) - 55 END)),
        lambda a, x: CASE WHEN x < 10 THEN (a * 10 + x) % 97 ELSE (a * 100 + x) % 97 END)""",
)


@dataclass(frozen=True, kw_only=True)
class ValueDetector:
    """One kind of personal data by the shape of values.

    :param pattern: RE2; the first match in a text is looked at.
    :param check: SQL about that match (``{m}``), for numbers with a check digit; empty: the pattern
        is enough.
    :param whole: the pattern must be the whole value, not a part of a text.
    :param share: of the values that are there, above which a column looks personal; 0: a single one.
    :param kinds: of which columns.
    """

    name: str
    pattern: str
    check: str = ""
    whole: bool = False
    share: float = 0.0
    kinds: tuple[str, ...] = (TEXT,)


_CARD = (
    r"(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"
    r"|3[47][0-9]{13}|6(?:011|5[0-9]{2})[0-9]{12}|35[0-9]{14}|3(?:0[0-5]|[68][0-9])[0-9]{11})"
)

VALUE_DETECTORS: tuple[ValueDetector, ...] = (
    ValueDetector(
        name="email",
        # Letters of any script, for which RE2's word boundary does not work.
        pattern=r"[\pL0-9][\pL0-9._%+-]*@(?:[\pL0-9](?:[\pL0-9-]*[\pL0-9])?\.)+\pL{2,}",
    ),
    ValueDetector(name="phone", pattern=r"\+[1-9][0-9]{0,2}(?:[ .()/-]{0,2}[0-9]){7,12}\b", share=0.001),
    ValueDetector(
        name="phone_national",
        pattern=r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}",
        whole=True,
        share=0.05,
    ),
    ValueDetector(
        name="iban",
        pattern=r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b",
        check="xops_iban(regexp_replace({m}, '[^A-Z0-9]', '', 'g')) = 1",
    ),
    ValueDetector(
        name="card",
        pattern=r"\b[2-6][0-9]{3}[ -][0-9]{4}[ -][0-9]{4}[ -][0-9]{4}\b"
        r"|\b3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5}\b",
        check=f"regexp_full_match(xops_digits({{m}}), '{_CARD}') AND xops_luhn(xops_digits({{m}})) = 0",
    ),
    ValueDetector(
        name="card_digits",
        pattern=_CARD,
        check="xops_luhn({m}) = 0",
        whole=True,
        share=0.2,
        kinds=(TEXT, NUMBER),
    ),
    ValueDetector(name="ipv4", pattern=rf"{_OCTET}(?:\.{_OCTET}){{3}}", whole=True, share=0.05),
    ValueDetector(
        name="ipv6",
        pattern=rf"(?:{_HEX}:){{7}}{_HEX}|(?:{_HEX}(?::{_HEX}){{0,6}})?::(?:{_HEX}(?::{_HEX}){{0,6}})?",
        check="{m} NOT IN ('::', '::1')",
        whole=True,
        share=0.01,
    ),
    ValueDetector(
        name="us_ssn",
        pattern=r"\b[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}\b",
        check="substr({m}, 1, 3) NOT IN ('000', '666') AND substr({m}, 5, 2) <> '00'"
        " AND substr({m}, 8, 4) <> '0000'",
        share=0.01,
    ),
    ValueDetector(
        name="uk_nino",
        pattern=r"\b[ABCEGHJ-PRSTW-Z][ABCEGHJ-NPRSTW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b",
        check="substr({m}, 1, 2) NOT IN ('BG', 'GB', 'KN', 'NK', 'NT', 'TN', 'ZZ')",
        share=0.05,
    ),
    ValueDetector(
        name="es_dni",
        pattern=r"\b[0-9XYZ][0-9]{7}-?[A-Z]\b",
        check="substr('TRWAGMYFPDXBNJZSQVHLCKE', 1 + CAST(translate(left({m}, 8), 'XYZ', '012') AS INTEGER)"
        " % 23, 1) = right({m}, 1)",
        share=0.2,
    ),
    ValueDetector(
        name="fr_nir",
        pattern=r"[12][0-9]{2}(?:0[1-9]|1[0-2])[0-9]{10}",
        check="97 - CAST(substr({m}, 1, 13) AS BIGINT) % 97 = CAST(substr({m}, 14, 2) AS INTEGER)",
        whole=True,
        share=0.2,
        kinds=(TEXT, NUMBER),
    ),
    ValueDetector(
        name="it_cf", pattern=r"\b[A-Z]{6}[0-9]{2}[ABCDEHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]\b", share=0.05
    ),
    ValueDetector(name="br_cpf", pattern=r"\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b", share=0.01),
)


@dataclass(frozen=True, kw_only=True)
class NameRule:
    """One kind of personal data by the words of a column's name, in this order and next to each other.

    :param kinds: of which columns: a number called ``email`` is a count of them.
    """

    name: str
    words: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] = (TEXT,)


_PEOPLE = (
    "first", "last", "full", "given", "family", "middle", "maiden", "sur", "nick", "person", "people",
    "customer", "client", "patient", "passenger", "employee", "applicant", "contact", "guest", "student",
    "user", "owner", "borrower", "buyer", "guardian", "spouse", "beneficiary", "insured", "tenant", "pilot",
    "doctor",
)  # fmt: skip

NAME_RULES: tuple[NameRule, ...] = (
    NameRule(name="email", words=(("email",), ("e", "mail"), ("mail", "address"))),
    NameRule(
        name="phone",
        words=(("phone",), ("telephone",), ("cellphone",), ("mobile", "number"), ("mobile", "no"),
               ("msisdn",), ("fax",), ("fax", "number"), ("tel",)),
        kinds=(TEXT, NUMBER),
    ),
    NameRule(
        name="person_name",
        words=(("surname",), ("lastname",), ("firstname",), ("fullname",), ("forename",), ("username",),
               *((who, "name") for who in _PEOPLE)),
    ),
    NameRule(
        name="birth",
        words=(("dob",), ("birthday",), ("birthdate",), ("birth", "date"), ("date", "of", "birth"),
               ("born", "on")),
        kinds=(TEXT, NUMBER, DATE),
    ),
    NameRule(
        name="address",
        words=(("street",), ("home", "address"), ("postal", "address"), ("mailing", "address"),
               ("billing", "address"), ("shipping", "address"), ("street", "address"), ("address", "line")),
    ),
    NameRule(name="ip_address", words=(("ip",), ("ip", "address"), ("ipaddress",), ("ipv4",), ("ipv6",))),
    NameRule(
        name="national_id",
        words=(("ssn",), ("social", "security"), ("national", "id"), ("national", "insurance"), ("tax", "id"),
               ("tin",), ("nino",), ("passport",), ("driver", "license"), ("drivers", "license"),
               ("driving", "licence"), ("identity", "card"), ("cpf",), ("dni",), ("nir",)),
        kinds=(TEXT, NUMBER),
    ),
    NameRule(
        name="bank_account",
        words=(("iban",), ("bank", "account"), ("account", "number"), ("credit", "card"), ("card", "number"),
               ("pan",), ("cvv",), ("cvc",)),
        kinds=(TEXT, NUMBER),
    ),
    NameRule(name="license_plate", words=(("license", "plate"), ("licence", "plate"), ("number", "plate"))),
)  # fmt: skip

# A column of these is about such data and holds none: has_email, phone_count, email_verified.
_ABOUT = frozenset(
    {
        "has",
        "is",
        "count",
        "counts",
        "num",
        "number_of",
        "flag",
        "verified",
        "valid",
        "length",
        "len",
        "present",
    }
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words_of(column: str) -> tuple[str, ...]:
    """The words of a column's name, in lower case.

    >>> words_of("customerEMail_Address2")
    ('customer', 'e', 'mail', 'address')
    """
    parts = re.split(r"[^A-Za-z]+", _CAMEL.sub(" ", column))
    return tuple(part.lower() for part in parts if part)


def kind_by_name(column: str, kind: str) -> str | None:
    """Which personal data a column of this name and kind should hold; None for one that says nothing.

    >>> kind_by_name("FirstName", "text"), kind_by_name("carrier_name", "text")
    ('person_name', None)
    >>> kind_by_name("email", "number") is None  # how many were sent, perhaps
    True
    """
    words = words_of(column)
    if _ABOUT & set(words):
        return None
    for rule in NAME_RULES:
        if kind in rule.kinds and any(_within(each, words) for each in rule.words):
            return rule.name
    return None


def _within(sought: tuple[str, ...], words: tuple[str, ...]) -> bool:
    size = len(sought)
    return any(words[start : start + size] == sought for start in range(len(words) - size + 1))
