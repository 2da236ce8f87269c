import numpy as np

from embeddings.customer.history import History
from embeddings.customer.session import session_of
from tests.unit.embeddings.small import DAY, NOW, events_of, past

HOUR = 1 / 24


def session(*events: tuple[str, int, float, int], moment: int = NOW) -> dict[str, list[int]]:
    found = session_of(past(*events), moment)
    return {} if found is None else {name: rows.tolist() for name, rows in found._asdict().items() if len(rows)}


def test_who_did_nothing_or_only_bought_is_in_no_session():
    assert session_of(past(), NOW) is None
    assert session_of(past(("purchase", 1, 0, 0), ("impression", 2, 0, 0)), NOW) is None


def test_a_cart_ends_with_a_purchase_and_after_six_hours():
    carts = ("add_to_cart", 1, 2 * HOUR, 0), ("add_to_cart", 2, HOUR, 0)
    assert session(*carts) == {"cart": [1, 2]}
    assert session(*carts, ("purchase", 5, 1.5 * HOUR, 0)) == {"cart": [2]}
    assert session(*carts, ("purchase", 5, 0.5 * HOUR, 0)) == {}
    assert session(*carts, moment=NOW + round(4.5 / 24 * DAY)) == {"cart": [2]}
    assert session(*carts, moment=NOW + round(5.5 / 24 * DAY)) == {}


def test_what_was_viewed_or_clicked_was_looked_at_and_what_was_only_shown_was_not():
    events = ("view", 3, HOUR, 0), ("click", 1, HOUR, 0), ("click", 3, HOUR, 0), ("impression", 7, HOUR, 0)
    assert session(*events) == {"looked": [1, 3]}


def test_a_dismissal_outlasts_a_purchase_but_not_a_month():
    dismissal = ("dismissal", 6, 20.0, 0)
    assert session(dismissal, ("purchase", 5, 1.0, 0)) == {"dismissed": [6]}
    assert session(dismissal, moment=NOW + 9 * DAY) == {"dismissed": [6]}
    assert session(dismissal, moment=NOW + 11 * DAY) == {}


def test_a_dismissed_offer_is_held_for_a_month_whatever_was_bought_since():
    events_E = events_of(("dismissal", -1, 20.0, 0), ("dismissal", -1, 10.0, 0), ("purchase", 5, 1.0, 0))
    events_E["offer"] = [3, 1, -1]
    history = History(events_E, np.zeros(0, np.int32), ())
    for later, expected in ((0, [1, 3]), (11, [1]), (21, [])):
        found = session_of(history, NOW + later * DAY)
        assert (found is None and not expected) or (found and found.dismissed_offers.tolist() == expected)


def test_what_has_no_product_is_in_no_session():
    assert session(("add_to_cart", -1, HOUR, 0), ("dismissal", -1, HOUR, 0), ("view", 4, HOUR, 0)) == {"looked": [4]}


def test_what_is_taken_out_of_the_basket_lies_in_it_no_more_until_it_is_put_in_again():
    put, taken = ("add_to_cart", 1, 3 * HOUR, 0), ("remove_from_cart", 1, 2 * HOUR, 0)
    other = ("add_to_cart", 2, 3 * HOUR, 0)
    assert session(put, other, taken) == {"cart": [2]}
    assert session(put, taken, ("add_to_cart", 1, HOUR, 0)) == {"cart": [1]}
    assert session(("remove_from_cart", 1, 4 * HOUR, 0), put) == {"cart": [1]}


def test_a_return_does_not_bring_back_the_basket_that_the_purchase_ended():
    cart, bought = ("add_to_cart", 1, 3 * HOUR, 0), ("purchase", 1, 2 * HOUR, 0)
    assert session(cart, bought, ("return", 1, HOUR, 0)) == {}


def test_within_a_second_the_order_of_events_decides():
    cart, bought = ("add_to_cart", 1, HOUR, 0), ("purchase", 2, HOUR, 0)
    assert session(bought, cart) == {"cart": [1]}
    assert session(cart, bought) == {}
