"""Personal data is found by the shape of values and the names of columns, and no value leaves the search."""

from __future__ import annotations

import ipaddress
import json
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_xops.errors import ArgumentError
from airflow_provider_xops.lake.commit import Segment, commit
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.quality._personal_detectors import kind_by_name
from airflow_provider_xops.quality.frames import ArrowFrame
from airflow_provider_xops.quality.personal_data import _found, search_personal_data
from airflow_provider_xops.records import PersonalDataReport

# Published examples, and numbers that their issuers reserve for documentation.
PERSONAL: dict[str, list[str]] = {
    "email": [
        "jane.doe@example.com", "j+tag@mail.example.co.uk", "write to: a_b@x-y.org please",
        '{"contact": "o.neil@example.ie"}', "UPPER@EXAMPLE.COM", "jörg@müller.example", "почта@пример.рф",
    ],
    "phone": ["+1 202-555-0143", "+442079460958", "+49 30 901820", "+33 1 23 45 67 89",
              "call +1 (202) 555-0143"],
    "phone_national": ["(202) 555-0143", "202-555-0143", "202.555.0143", "1-202-555-0143"],
    "iban": [
        "GB82WEST12345698765432", "DE89 3704 0044 0532 0130 00", "FR1420041010050500013M02606",
        "pay NL91ABNA0417164300 today", "NO9386011117947",
    ],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "card 4012 8888 8888 1881 please",
             "3782 822463 10005"],
    "card_digits": ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117"],
    "ipv4": ["192.0.2.17", "198.51.100.1", "255.255.255.255", "8.8.8.8"],
    "ipv6": ["2001:db8::1", "2001:0db8:85a3:0000:0000:8a2e:0370:7334", "fe80::1ff:fe23:4567:890a"],
    "us_ssn": ["078-05-1120", "219-09-9999", "ssn 457-55-5462"],
    "uk_nino": ["AB 12 34 56 C", "AB123456C"],
    "es_dni": ["12345678Z", "X1234567L"],
    "fr_nir": ["255081416802538"],
    "it_cf": ["RSSMRA85T10A562S"],
    "br_cpf": ["529.982.247-25"],
}  # fmt: skip

NOT_PERSONAL: dict[str, list[str]] = {
    "tail numbers": ["N14228", "N24211", "N619AA"],
    "flight ids": ["UA1545/2013-01-01", "B6725", "DL461"],
    "days": ["2013-01-01", "2013-12-31", "01/02/2013"],
    "times": ["12:30:45", "05:17", "2013-01-01T05:00:00+00:00"],
    "versions": ["1.2.3", "10.0.1-rc1", "2026.1"],
    "paths": ["user@host", "a@b", "s3://bucket/key@v2", "@handle", "x @ y.com"],
    "codes": ["::", "a::b::c", "std::vector", "00:1B:44:11:3A:B7"],
    "ibans with a wrong check digit": ["GB83WEST12345698765432", "DE88370400440532013000"],
    "cards with a wrong check digit": ["4111 1111 1111 1112", "4111111111111112"],
    "part numbers": ["000-12-3456", "666-12-3456", "123-00-4567", "123-45-0000", "987-65-4321"],
    "wrong letters": ["12345678A", "BG123456A"],
    "numbers": ["0", "42", "-7", "123456789", "1234567890123456", "3.14159"],
    "words": ["JFK", "United Air Lines Inc.", "a sentence about nothing", ""],
    "uuids": ["123e4567-e89b-12d3-a456-426614174000"],
    "hashes": ["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
}


def kinds_in(values: list[Any], *, name: str = "c", data_type: pa.DataType | None = None) -> set[str]:
    frame = ArrowFrame(pa.table({name: pa.array(values, data_type)}))
    return {check.check.removeprefix("personal:") for check in _found(frame, [name])}


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, values in PERSONAL.items() for v in values])
def test_each_kind_is_found_by_its_values(kind: str, value: str) -> None:
    assert kind in kinds_in([value])


@pytest.mark.parametrize("name", NOT_PERSONAL)
def test_what_is_not_personal_is_not_found(name: str) -> None:
    assert kinds_in(NOT_PERSONAL[name]) == set()


@pytest.mark.parametrize(
    ("column", "data", "kind"),
    [
        ("email", "text", "email"),
        ("customerEmail", "text", "email"),
        ("e_mail", "text", "email"),
        ("EMAIL_ADDRESS", "text", "email"),
        ("phone", "number", "phone"),
        ("home_phone_1", "text", "phone"),
        ("first_name", "text", "person_name"),
        ("LastName", "text", "person_name"),
        ("passenger_name", "text", "person_name"),
        ("dob", "date", "birth"),
        ("date_of_birth", "text", "birth"),
        ("client_ip", "text", "ip_address"),
        ("ssn", "number", "national_id"),
        ("passport_no", "text", "national_id"),
        ("credit_card", "number", "bank_account"),
        ("billing_address", "text", "address"),
        ("carrier_name", "text", None),
        ("airport_name", "text", None),
        ("name", "text", None),
        ("ship", "text", None),
        ("zip_code", "text", None),
        ("has_email", "boolean", None),
        ("email_count", "number", None),
        ("email_verified", "text", None),
        ("phone", "boolean", None),
        ("tailnum", "text", None),
        ("dest", "text", None),
        ("telemetry", "text", None),
        ("birth_rate", "number", None),
        ("ip_share", "number", None),
    ],
)
def test_columns_by_their_names(column: str, data: str, kind: str | None) -> None:
    assert kind_by_name(column, data) == kind


def test_one_address_among_many_values_is_enough_but_one_number_that_looks_like_a_card_is_not() -> None:
    assert kinds_in(["nothing"] * 9_999 + ["jane@example.com"]) == {"email"}
    # A sixteen-digit id passes Luhn's sum one time in ten.
    ids = [4_000_000_000_000_000 + number for number in range(1_000)]
    assert kinds_in(ids) == set()
    assert kinds_in([4111111111111111, None, 5555555555554444]) == {"card_digits"}
    # Whole numbers with missing values are often floats.
    assert kinds_in([4111111111111111.0, None, 5555555555554444.0]) == {"card_digits"}


def test_a_column_without_values_is_not_personal() -> None:
    assert kinds_in([None, None], data_type=pa.string()) == set()
    assert kinds_in([], data_type=pa.string()) == set()
    assert kinds_in([float("nan"), float("inf")]) == set()


def test_nested_values_are_looked_into() -> None:
    assert kinds_in([["a", "jane@example.com"], []]) == {"email"}


@settings(max_examples=8, deadline=None)
@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=20))
def test_every_ipv4_address_is_found(addresses: list[ipaddress.IPv4Address]) -> None:
    assert "ipv4" in kinds_in([str(each) for each in addresses])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.ip_addresses(v=6).filter(lambda each: int(each) > 1), min_size=1, max_size=20))
def test_every_ipv6_address_is_found(addresses: list[ipaddress.IPv6Address]) -> None:
    assert "ipv6" in kinds_in([str(each) for each in addresses])
    assert "ipv6" in kinds_in([each.exploded for each in addresses])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.from_regex(r"[0-9]{15}", fullmatch=True), min_size=1, max_size=20))
def test_luhns_sum_is_the_published_one(bodies: list[str]) -> None:
    cards = [f"4{body[1:]}{check_digit(f'4{body[1:]}')}" for body in bodies]
    wrong = [card[:-1] + str((int(card[-1]) + 1) % 10) for card in cards]
    assert kinds_in(cards) == {"card_digits"}
    assert kinds_in(wrong) == set()


def check_digit(digits: str) -> int:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return -total % 10


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=30))
def test_no_text_breaks_the_search(values: list[str]) -> None:
    for check in _found(ArrowFrame(pa.table({"c": pa.array(values, pa.string())})), ["c"]):
        assert 0 < check.observed <= 1


@pytest.fixture
def people(lake: Lake, make_actor: Any, as_of: datetime) -> Any:
    rows = pa.table(
        {
            "x": [1.0, 2.0, 3.0, None],
            "note": ["call jane@example.com", "nothing", None, "nothing"],
            "first_name": ["Ada", "Alan", "Grace", "Edsger"],
        }
    )
    segments = [
        Segment(partition="2013-01-01", fingerprint="a", data=lambda: rows.to_reader()),
        Segment(partition="2013-01-02", fingerprint="b", data=lambda: rows.slice(1, 1).to_reader()),
    ]
    return commit(lake, "people", segments, actor=make_actor(), as_of=as_of).record.ref


def test_a_report_names_columns_kinds_and_shares_but_no_value(
    lake: Lake, people: Any, make_actor: Any, as_of: datetime
) -> None:
    report = search_personal_data(lake, people, actor=make_actor(), as_of=as_of)

    assert [(check.check, check.column, check.observed) for check in report.columns] == [
        ("personal:person_name", "first_name", None),
        ("personal:email", "note", 0.25),
    ]
    assert (report.rows, report.searched) == (5, ("first_name", "note", "x"))
    text = json.dumps(report.to_json())
    assert not any(value in text for value in ("jane", "example.com", "Ada", "Grace"))
    assert lake.evidence.get(PersonalDataReport.kind, report.record_id) == report


def test_only_the_named_columns_and_partitions_are_searched(
    lake: Lake, people: Any, make_actor: Any, as_of: datetime
) -> None:
    some = search_personal_data(lake, people, columns=["x", "note"], partitions=["2013-01-02"],
                                actor=make_actor(), as_of=as_of)  # fmt: skip
    assert (some.columns, some.rows) == ((), 1)
    with pytest.raises(ArgumentError, match=r"argument\.column"):
        search_personal_data(lake, people, columns=["nobody"], actor=make_actor(), as_of=as_of)


def test_the_same_question_is_answered_once(
    lake: Lake, people: Any, make_actor: Any, as_of: datetime
) -> None:
    first = search_personal_data(lake, people, columns=["note", "x"], actor=make_actor(), as_of=as_of)
    again = search_personal_data(
        lake, people, columns=["x", "note"], actor=make_actor(key="other"), as_of=as_of
    )
    assert again == first
