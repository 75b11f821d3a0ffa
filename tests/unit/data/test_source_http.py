"""HTTP sources against a real server that pages, fails, throttles, loops, changes and breaks off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
import requests

from airflow_provider_xops.data._spooling import Ingested
from airflow_provider_xops.data.declared_sources import Cursor, HttpSource, NextLink, Offset, PageNumber
from airflow_provider_xops.data.ingest import recorded_schema
from airflow_provider_xops.data.source_http import ingest_http
from airflow_provider_xops.errors import ArgumentError, SourceError, UnavailableError, XOpsError
from airflow_provider_xops.lake.lake import Lake
from airflow_provider_xops.lake.read import scan
from airflow_provider_xops.lake.tables import head, table_exists
from airflow_provider_xops.records import Actor
from tests.unit.data.http_api import Api, Asked, Reply, serving

SOURCE = HttpSource(conn_id="api", endpoint="/v1/orders", records="data.items", backoff=0.01)
NEXT = replace(SOURCE, pagination=NextLink("links.next"))
SECRET = "hunter2-secret"
Load = Callable[..., Ingested]


@pytest.fixture(scope="module")
def server() -> Iterator[Api]:
    with serving() as api:
        yield api


@pytest.fixture
def api(server: Api) -> Api:
    """The server, with nothing asked yet: three pages of two orders, linked to each other."""

    def answer(asked: Asked) -> Reply:
        page = int(asked.query.get("page", 1))
        items = [{"id": number, "carrier": "AA"} for number in (2 * page - 1, 2 * page)]
        link = f"/v1/orders?page={page + 1}" if page < 3 else None
        return Reply({"data": {"items": items}, "links": {"next": link}})

    server.asked.clear()
    server.answer = answer
    return server


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def load(lake: Lake, make_actor: Callable[..., Actor], as_of: datetime, api: Api, slept: list[float]) -> Load:
    """``ingest_http`` into the table ``orders``, each call by a later attempt; waiting takes no time."""

    def load(source: HttpSource = NEXT, **options: Any) -> Ingested:
        options = {"actor": make_actor(), "base_url": api.url, **options}
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {SECRET}"
            return ingest_http(
                lake, "orders", source, session=session, as_of=as_of, sleep=slept.append, **options
            )

    return load


def ids(lake: Lake) -> list[int]:
    found: list[int] = scan(lake, head(lake, "orders__raw")).read_all().column("id").to_pylist()
    return found


def pages(api: Api, *contents: Any) -> None:
    """Let the server give these pages of records, one after the other, by the parameter ``page``."""

    def answer(asked: Asked) -> Reply:
        number = int(asked.query.get("page", 1))
        return Reply({"data": {"items": contents[number - 1] if number <= len(contents) else []}})

    api.answer = answer


NUMBERED = replace(SOURCE, pagination=PageNumber())


class TestPaging:
    def test_linked_pages_arrive_with_the_login_and_are_not_loaded_again(
        self, load: Load, lake: Lake, api: Api
    ) -> None:
        first, again = load(), load()

        assert ids(lake) == [1, 2, 3, 4, 5, 6]
        assert recorded_schema(lake, "orders__raw") == {"id": "int64", "carrier": "string"}
        assert (first.reused, again.reused) == (False, True)
        assert {asked.headers["Authorization"] for asked in api.asked} == {f"Bearer {SECRET}"}

    def test_the_same_records_in_another_order_on_other_pages_commit_nothing(
        self, load: Load, api: Api
    ) -> None:
        pages(api, [{"id": 1}, {"id": 2}], [{"id": 3}])
        load(NUMBERED)
        pages(api, [{"id": 3}], [{"id": 2}], [{"id": 1}])
        assert load(NUMBERED).reused

    def test_a_link_in_the_header(self, load: Load, lake: Lake, api: Api) -> None:
        def answer(asked: Asked) -> Reply:
            more = asked.query.get("page") != "2"
            link = {"Link": f'<{api.url}/v1/orders?page=2>; rel="next"'} if more else {}
            return Reply([{"id": 1 if more else 2}], headers=link)

        api.answer = answer
        load(replace(SOURCE, records=None, pagination=NextLink()))
        assert ids(lake) == [1, 2]

    def test_numbered_pages_end_with_an_empty_one_whatever_the_server_s_own_limit(
        self, load: Load, lake: Lake, api: Api
    ) -> None:
        pages(api, [{"id": 1}], [{"id": 2}, {"id": 3}], [{"id": 4}])
        load(replace(SOURCE, pagination=PageNumber(size_param="size", size=100)))
        assert ids(lake) == [1, 2, 3, 4]
        assert [(asked.query["page"], asked.query["size"]) for asked in api.asked] == [
            (str(number), "100") for number in (1, 2, 3, 4)
        ]

    def test_numbered_pages_may_end_with_404(self, load: Load, lake: Lake, api: Api) -> None:
        api.answer = lambda asked: (
            Reply({"data": {"items": [{"id": 1}]}}) if asked.query["page"] == "1" else Reply({}, status=404)
        )
        load(NUMBERED)
        assert ids(lake) == [1]

    def test_offsets_go_on_by_what_came(self, load: Load, lake: Lake, api: Api) -> None:
        records = [{"id": number} for number in range(5)]

        def answer(asked: Asked) -> Reply:
            start = int(asked.query["offset"])
            return Reply(records[start : start + min(2, int(asked.query["limit"]))])  # its own limit is 2

        api.answer = answer
        load(replace(SOURCE, records=None, pagination=Offset(limit=100)))
        assert ids(lake) == [0, 1, 2, 3, 4]

    def test_a_cursor_in_a_posted_body(self, load: Load, lake: Lake, api: Api) -> None:
        def answer(asked: Asked) -> Reply:
            token = asked.body.get("cursor")
            return Reply({"rows": [{"id": 2 if token else 1}], "meta": {"next": None if token else "abc"}})

        api.answer = answer
        source = replace(SOURCE, method="POST", body={"day": "{partition}"}, records="rows")
        load(replace(source, pagination=Cursor("meta.next")), partitions=["2013-01-01"])
        assert ids(lake) == [1, 2]
        assert [asked.body for asked in api.asked] == [
            {"day": "2013-01-01"},
            {"day": "2013-01-01", "cursor": "abc"},
        ]

    def test_a_key_with_dots_is_found(self, load: Load, lake: Lake, api: Api) -> None:
        api.answer = lambda asked: Reply({"@odata.nextLink": None, "value.list": {"a.b": [{"id": 1}]}})
        load(replace(SOURCE, records="value.list.a.b", pagination=NextLink("@odata.nextLink")))
        assert ids(lake) == [1]

    def test_each_partition_is_asked_for_by_its_name(self, load: Load, lake: Lake, api: Api) -> None:
        api.answer = lambda asked: Reply([{"id": int(asked.query["day"][-1])}])
        source = replace(
            SOURCE, endpoint="/v1/{partition}/orders", params={"day": "{partition}"}, records=None
        )
        result = load(source, partitions=["d 1", "d 2"])
        assert result.record is not None
        assert result.record.partitions == ("d 1", "d 2")
        assert ids(lake) == [1, 2]
        assert api.asked[0].path == "/v1/d%201/orders"

    def test_no_records_are_an_empty_partition(self, load: Load, lake: Lake, api: Api) -> None:
        api.answer = lambda asked: Reply(b"", status=204)
        with pytest.raises(ArgumentError, match=r"argument\.schema_needed"):
            load()
        result = load(schema={"id": "int64"})
        assert result.record is not None
        assert result.record.rows == 0


class TestNothingPartial:
    @pytest.mark.parametrize(
        ("source", "code"),
        [
            (NEXT, "source.page_loop"),
            (replace(SOURCE, pagination=Cursor("links.next")), "source.page_loop"),
            (replace(SOURCE, pagination=PageNumber(param="unknown")), "source.page_loop"),
        ],
    )
    def test_pages_that_go_in_a_circle_are_refused(
        self, load: Load, lake: Lake, api: Api, source: HttpSource, code: str
    ) -> None:
        api.answer = lambda asked: Reply({"data": {"items": [{"id": 1}]}, "links": {"next": "/v1/orders"}})
        with pytest.raises(SourceError) as caught:
            load(source)
        assert caught.value.code == code
        assert len(api.asked) < 5
        assert not table_exists(lake, "orders__raw")

    def test_more_pages_than_allowed_are_refused(self, load: Load, lake: Lake, api: Api) -> None:
        with pytest.raises(SourceError, match=r"source\.too_many_pages"):
            load(replace(NEXT, max_pages=2))
        assert not table_exists(lake, "orders__raw")
        load(replace(NEXT, max_pages=3))

    def test_a_page_larger_than_allowed_is_refused(self, load: Load) -> None:
        with pytest.raises(SourceError, match=r"source\.page_too_large"):
            load(replace(NEXT, max_page_bytes=20))

    @pytest.mark.parametrize(
        ("record", "error"),
        [
            ({"id": 3, "new": 1}, r"source\.columns.*not declared: 'new' \(page 2\)"),
            ({"id": "x"}, r"source\.types.*orders\.jsonl, line 3: column 'id'"),
            ({"id": [1]}, r"source\.nested.*'id' of record 3"),
            (7, r"source\.records.*record 3"),
        ],
    )
    def test_a_change_in_the_middle_leaves_the_table_as_it_was(
        self, load: Load, lake: Lake, api: Api, record: Any, error: str
    ) -> None:
        pages(api, [{"id": 1}])
        load(NUMBERED)
        pages(api, [{"id": 1}, {"id": 2}], [record])
        with pytest.raises(SourceError, match=error):
            load(NUMBERED)
        assert ids(lake) == [1]

    def test_a_field_that_is_in_no_record_is_refused_or_null(self, load: Load, lake: Lake, api: Api) -> None:
        schema = {"id": "int64", "note": "string"}
        pages(api, [{"id": 1}])
        with pytest.raises(SourceError, match=r"source\.columns.*'note'"):
            load(NUMBERED, schema=schema)
        load(replace(NUMBERED, missing_fields="null"), schema=schema)
        assert ids(lake) == [1]

    def test_unknown_fields_may_be_dropped(self, load: Load, lake: Lake, api: Api) -> None:
        pages(api, [{"id": 1, "new": {"a": 1}}])
        load(replace(NUMBERED, unknown_fields="drop"), schema={"id": "int64"})
        assert ids(lake) == [1]

    def test_nested_values_may_be_kept_as_text_or_as_declared(self, load: Load, lake: Lake, api: Api) -> None:
        pages(api, [{"id": 1, "tags": ["b", "a"], "who": {"z": 1, "name": "é"}}])
        schema = {"id": "int64", "tags": "list<string>", "who": "string"}
        load(replace(NUMBERED, nested="json"), schema=schema)
        row = scan(lake, head(lake, "orders__raw")).read_all().to_pylist()[0]
        assert (row["tags"], row["who"]) == (["b", "a"], '{"name":"é","z":1}')


class TestFailures:
    @pytest.mark.parametrize(
        "reply", [Reply({}, status=503), Reply({}, status=429), Reply([{"id": 1}], cut=3)]
    )
    def test_a_passing_failure_is_tried_again(
        self, load: Load, lake: Lake, api: Api, slept: list[float], reply: Reply
    ) -> None:
        good = api.answer
        api.answer = lambda asked: reply if asked.number in (2, 3) else good(asked)
        load()
        assert ids(lake) == [1, 2, 3, 4, 5, 6]
        assert len(slept) == 2
        assert slept[0] <= 0.01 < slept[1] * 1.01 <= 0.021  # doubled, with up to a half taken off by chance

    def test_retry_after_is_honored_up_to_a_bound(self, load: Load, api: Api, slept: list[float]) -> None:
        good = api.answer
        busy = Reply({}, status=429, headers={"Retry-After": "7"})
        api.answer = lambda asked: busy if asked.number == 1 else good(asked)
        load()
        assert slept == [7.0]

        api.asked.clear()
        with pytest.raises(UnavailableError, match=r"unavailable\.api.*asks to wait 7 s") as caught:
            load(replace(NEXT, max_wait=5))
        assert caught.value.retryable
        assert len(api.asked) == 1

    def test_a_date_to_retry_at_is_read_against_the_server_s_clock(
        self, load: Load, api: Api, slept: list[float]
    ) -> None:
        from email.utils import formatdate
        from time import time

        good = api.answer
        later = Reply({}, status=503, headers={"Retry-After": formatdate(time() + 60, usegmt=True)})
        api.answer = lambda asked: later if asked.number == 1 else good(asked)
        load()
        assert 55 < slept[0] < 65

    def test_a_wait_that_is_no_number_is_left_to_the_backoff(
        self, load: Load, api: Api, slept: list[float]
    ) -> None:
        good, odd = api.answer, Reply({}, status=429, headers={"Retry-After": "\u00b2"})
        api.answer = lambda asked: odd if asked.number == 1 else good(asked)
        load()
        assert slept[0] <= 0.01

    def test_after_all_retries_it_is_unavailable_and_airflow_may_retry(
        self, load: Load, lake: Lake, api: Api
    ) -> None:
        api.answer = lambda asked: Reply({}, status=500)
        with pytest.raises(UnavailableError) as caught:
            load(replace(NEXT, retries=2))
        assert caught.value.retryable
        assert len(api.asked) == 3
        assert not table_exists(lake, "orders__raw")

    def test_a_server_that_is_down_is_unavailable(self, load: Load) -> None:
        with pytest.raises(UnavailableError, match="ConnectionError"):
            load(replace(NEXT, retries=1), base_url="http://127.0.0.1:9")

    def test_a_server_that_does_not_answer_is_unavailable(self, load: Load, api: Api) -> None:
        from time import sleep

        def slow(asked: Asked) -> Reply:
            sleep(0.3)
            return Reply([])

        api.answer = slow
        with pytest.raises(UnavailableError, match="Timeout"):
            load(replace(NEXT, retries=0, timeout=0.05))

    @pytest.mark.parametrize(
        ("reply", "code"),
        [
            (Reply({}, status=401), "source.forbidden"),
            (Reply({}, status=404), "source.missing"),
            (Reply({}, status=400), "source.refused"),
            (Reply(b"<html>log in</html>"), "source.malformed"),
            (Reply(b'[{"id": NaN}]'), "source.malformed"),
            (Reply(b'{"data": {"items": [{"id": 1, "id": 2}]}}'), "source.malformed"),
            (Reply(b'{"data": {"items": [{"id": 1e400}]}}'), "source.malformed"),
            (Reply('{"data": "é"}'.encode("latin-1")), "source.malformed"),
            (Reply(b'{"data": {"items": [{"id": 9223372036854775808}]}}'), "source.types"),
            (Reply(b""), "source.malformed"),
            (Reply(b"null"), "source.records"),
            (Reply({"data": {"items": []}, "links": {"next": "http://h:99999/"}}), "source.malformed"),
            (Reply({"data": {"items": []}, "links": {"next": "http://[::1/"}}), "source.malformed"),
            (Reply({"items": []}), "source.records"),
            (Reply({}, status=302, headers={"Location": "http://evil.example/x"}), "source.foreign_link"),
            (
                Reply({"data": {"items": []}, "links": {"next": "http://evil.example/x"}}),
                "source.foreign_link",
            ),
        ],
    )
    def test_what_a_retry_cannot_help_is_refused_at_once(
        self, load: Load, api: Api, reply: Reply, code: str
    ) -> None:
        api.answer = lambda asked: reply
        with pytest.raises(SourceError) as caught:
            load()
        assert caught.value.code == code
        assert len(api.asked) == 1

    def test_a_redirect_on_the_same_host_is_followed(self, load: Load, lake: Lake, api: Api) -> None:
        api.answer = lambda asked: (
            Reply({}, status=308, headers={"Location": "/v2/orders"})
            if asked.path == "/v1/orders"
            else Reply({"data": {"items": [{"id": 1}]}})
        )
        load()
        assert ids(lake) == [1]

    def test_no_content_empties_the_partition_and_an_empty_answer_does_not(
        self, load: Load, lake: Lake, api: Api
    ) -> None:
        source = replace(SOURCE, pagination=None)
        load(source)
        api.answer = lambda asked: Reply(b"", status=200)
        with pytest.raises(SourceError, match=r"source\.malformed.*0 bytes"):
            load(source)
        assert ids(lake) == [1, 2]
        api.answer = lambda asked: Reply(b"", status=204)
        load(source)
        assert ids(lake) == []

    def test_requests_are_paced(self, load: Load, slept: list[float]) -> None:
        load(replace(NEXT, rate_limit=4))
        # the second pause makes up for the first one, which took no time here
        assert [round(pause, 1) for pause in slept] in ([0.2, 0.5], [0.2, 0.4])


def test_numbers_keep_all_their_digits(load: Load, lake: Lake, api: Api) -> None:
    numbers = b'"id": 123456789012345678901234567890, "p": 12345678901234567.89'
    nested = b'"d": {"x": 0.10000000000000000001}'
    api.answer = lambda asked: Reply(b"[{%s, %s}]" % (numbers, nested))
    schema = {"id": "decimal(38,0)", "p": "decimal(20,2)", "d": "string"}
    load(replace(SOURCE, records=None, nested="json"), schema=schema)
    assert scan(lake, head(lake, "orders__raw")).read_all().to_pylist() == [
        {
            "id": Decimal("123456789012345678901234567890"),
            "p": Decimal("12345678901234567.89"),
            "d": '{"x":0.10000000000000000001}',
        }
    ]


def test_the_partition_stands_wherever_the_body_names_it(load: Load, api: Api) -> None:
    body = {"filter": {"days": ["{partition}"]}}
    load(
        replace(SOURCE, method="POST", body=body, params={"d": ["{partition}"]}),
        partitions=["2013-01-01", "2013-01-02"],
    )
    assert [asked.body for asked in api.asked] == [
        {"filter": {"days": ["2013-01-01"]}},
        {"filter": {"days": ["2013-01-02"]}},
    ]
    assert [asked.query["d"] for asked in api.asked] == ["2013-01-01", "2013-01-02"]


@pytest.mark.parametrize("last", [False, None, ""])
def test_a_last_page_may_say_so_in_several_ways(load: Load, lake: Lake, api: Api, last: Any) -> None:
    api.answer = lambda asked: Reply({"data": {"items": [{"id": 1}]}, "links": {"next": last}})
    load()
    load(replace(SOURCE, pagination=Cursor("links.next")))
    assert ids(lake) == [1]
    assert len(api.asked) == 2


def test_secrets_are_in_no_error_no_log_and_no_record(
    load: Load, lake: Lake, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = replace(NEXT, params={"api_key": SECRET}, headers={"X-Token": SECRET}, retries=1)
    base = api.url.replace("http://", f"http://user:{SECRET}@")
    result = load(source, base_url=base)
    texts = [repr(source), str(result.record)]
    for status in (401, 500):
        api.answer = lambda asked, status=status: Reply({"error": SECRET}, status=status)
        with pytest.raises(XOpsError) as caught:
            load(source, base_url=base)
        texts.append(f"{caught.value} {caught.value.to_json()} {caught.value.__cause__}")
    assert SECRET not in "\n".join([*texts, caplog.text])
    assert result.record is not None
    assert result.record.sources[0].uri == f"{api.url}/v1/orders"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": "PUT"}, "argument.method"),
        ({"unknown_fields": "x"}, "argument.unknown_fields"),
        ({"nested": "x"}, "argument.nested"),
        ({"max_pages": 0}, "argument.number"),
        ({"rate_limit": 0}, "argument.number"),
        ({"timeout": "5"}, "argument.number"),
        ({"retries": -1}, "argument.number"),
        ({"method": "POST", "body": {"day": datetime(2013, 1, 1)}}, "argument.body"),  # noqa: DTZ001
        ({"headers": {"X": "\u20ac"}}, "argument.url"),
        ({"endpoint": "http://elsewhere/x"}, "argument.endpoint"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    load: Load, api: Api, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        load(replace(NEXT, **changes))
    assert caught.value.code == code
    assert api.asked == []


def test_several_partitions_from_one_address_are_refused(load: Load) -> None:
    with pytest.raises(ArgumentError, match=r"argument\.source.*\{partition\}"):
        load(partitions=["a", "b"])
