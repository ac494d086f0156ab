"""How long rounds take, what tenants' devices may have moved, and how often devices served a task, as the zone's ledger folds them."""

from schemas.facts import LEADERSHIP, Admitted, Closed, Finalised, Lapsed, Slot
from schemas.topics import DAY
from streams.ledger import Spent, Zone, at_work, restore, snapshot
from tests.streams.book import Book, claim, opened, round_of, task, zone


def begun(time: int = 0, **more) -> tuple[Book, int]:
    book = zone()
    token = claim(book, LEADERSHIP, 0, 1)
    book.ok(opened(token, **more), time=time)
    return book, token


def admit(book: Book, token: int, time: int, *devices: str, n: int = 1, name: str = "t") -> None:
    first = len(book.state.tasks[name].rounds[n].devices)
    slots = tuple(Slot(name, n, first + i, d) for i, d in enumerate(devices))
    book.ok(Admitted(token, book.state.admitted, {}, slots), time=time)


def close(book: Book, token: int, time: int, n: int = 1) -> None:
    book.ok(Closed(token, "t", n, "demand", {0: 0, 1: 0}), time=time)
    book.ok(Finalised(token, "t", n, (), 0, 0, 0, 0.0), time=time)


def test_a_round_has_its_devices_when_all_places_are_taken():
    book, token = begun(time=1_000, places=3)
    admit(book, token, 2_000, "a", "b")
    assert round_of(book).full_at is None
    assert round_of(book).got(9_000) is None
    admit(book, token, 5_000, "c")
    assert round_of(book).full_at == round_of(book).got(5_000) == 5_000
    book.ok(Admitted(token, book.state.admitted, {}, (), (Lapsed("t", 1, 0),)), time=6_000)
    admit(book, token, 7_000, "d")
    assert round_of(book).full_at == 5_000, "that it was full once is what counts"
    close(book, token, 9_000)
    assert (task(book).fill_ms, task(book).serve_ms) == (4_000, 4_000)
    assert (task(book).service, task(book).began) == (4, 1_000)


def test_or_when_its_scheduling_time_is_over():
    book, token = begun(time=1_000, places=3, fill=4_000)
    admit(book, token, 2_000, "a", "b")
    assert round_of(book).got(3_999) is None
    assert round_of(book).got(4_000) == round_of(book).got(9_000) == 4_000
    close(book, token, 10_000)
    assert (task(book).fill_ms, task(book).serve_ms) == (3_000, 6_000)


def test_one_that_never_had_them_took_all_its_time_to_get_them():
    book, token = begun(time=1_000, places=3)
    admit(book, token, 2_000, "a", "b")
    close(book, token, 10_000)
    assert (task(book).fill_ms, task(book).serve_ms) == (9_000, 0), "nobody knows how long it takes to serve it"


def test_the_last_round_weighs_half():
    book, token = begun(places=1)
    admit(book, token, 400, "a")
    close(book, token, 1_000)
    book.ok(opened(token, round=2, places=1), time=2_000)
    admit(book, token, 2_200, "a", n=2)
    close(book, token, 3_000, n=2)
    assert (task(book).fill_ms, task(book).serve_ms) == (300, 700)
    assert task(book).service == 2


def test_in_asynchronous_rounds_devices_of_earlier_rounds_take_places():
    book, token = begun(time=1_000, places=2, refill=1, staleness=1)
    admit(book, token, 2_000, "a", "b")
    book.ok(Closed(token, "t", 1, "demand", {0: 0, 1: 0}), time=3_000)
    assert at_work(task(book)) == 2, "between two rounds they go on"
    book.ok(Finalised(token, "t", 1, (), 0, 0, 0, 0.0), time=3_000)
    book.ok(opened(token, round=2, places=2, refill=1, staleness=1), time=4_000)
    assert round_of(book, 2).full_at == 4_000
    assert at_work(task(book)) == 2


def test_bytes_are_counted_by_tenant_and_day_of_the_ledger():
    book, token = begun(tenant="acme", cost=100)
    book.ok(opened(token, task="u", tenant="beta", cost=7))
    admit(book, token, DAY - 2, "a", "b")
    admit(book, token, DAY - 1, "x", name="u")
    assert [book.state.spent_on(t, 0) for t in ("acme", "beta", "ghost")] == [200, 7, 0]
    assert book.state.spent_on("acme", 1) == 0
    admit(book, token, DAY, "c")
    assert book.state.spent == {"acme": Spent(1, 100)}, "what was a day before is forgotten"
    admit(book, token, DAY - 1, "y", name="u")  # a broker whose clock is behind leads now
    assert book.state.spent == {"acme": Spent(1, 100), "beta": Spent(1, 7)}
    assert restore(snapshot(book.state), Zone) == book.state


def test_two_tasks_of_a_tenant_in_one_fact_add_up():
    book, token = begun(tenant="acme", cost=100)
    book.ok(opened(token, task="u", tenant="acme", cost=7))
    book.ok(Admitted(token, book.state.admitted, {}, (Slot("t", 1, 0, "a"), Slot("u", 1, 0, "x"))))
    assert book.state.spent_on("acme", 0) == 107
    book.ok(Closed(token, "t", 1, "demand", {0: 0, 1: 0}))
    book.ok(Admitted(token, book.state.admitted, {}, (Slot("t", 1, 1, "b"),)))
    assert book.state.spent_on("acme", 0) == 107, "a slot in a round already closed is void"
