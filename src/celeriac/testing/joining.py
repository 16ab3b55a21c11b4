"""Joins in settlements: a chord's body is sent once, by the settlement that completes it."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import states
from celeriac.message import Completes, Delivery, Owner, Settled, Settlement
from celeriac.testing.harness import StoreUnderTest, Suite, in_background
from celeriac.testing.samples import (
    arrival,
    bury,
    defer,
    done,
    ids,
    join,
    message,
    messages,
    record,
    release,
)

SETTLED, LOST = Settled.SETTLED, Settled.LOST


class JoinTests(Suite):
    @pytest.fixture
    def owner(self, store: StoreUnderTest) -> Owner:
        store.need_one_store()
        if not store.capabilities.joins:
            pytest.skip("this broker does not count arrivals")
        return store.worker()

    def test_completes(self, store: StoreUnderTest, owner: Owner) -> None:
        """Rule: the settlement that would complete a join comes back as completes(parts), with
        nothing of it done until it is repeated with the token."""
        first, second = self._parts(store, owner, 2)
        assert store.broker.settle([self._in(first, 0)]) == [SETTLED]
        last = self._in(second, 1)
        told = self._told(store, last)
        assert told.join == "join"
        assert told.parts == (arrival(0), arrival(1))
        assert store.results.get(["p0", "p1"]) == [record("p0"), None]
        assert ids(store.claim(owner)) == ["after-0"]
        assert store.broker.settle([self._with_body(second, 1, told)]) == [SETTLED]
        assert ids(store.claim(owner)) == ["after-1", "body"]
        assert store.results.get(["p1"]) == [record("p1")]
        store.broker.unregister("w1")
        assert "p1" not in ids(store.claim(store.worker()))

    def test_parts_by_index_with_values(self, store: StoreUnderTest, owner: Owner) -> None:
        """Completes: the parts by index, the new one among them, with ids, states and values."""
        deliveries = self._parts(store, owner, 6)
        parts = [
            arrival(0, value=b'"\xc3\xa9"'),
            arrival(1, id="x", state=states.FAILURE, value=b'{"exc_type":"KeyError"}'),
            arrival(2, value=b"null"),
            arrival(3, value=b"[" + b"1," * 50_000 + b"1]"),
            arrival(4, state=states.REVOKED, value=b"{}"),
            arrival(5, value=b'{"a":{"b":[1.5,null]}}'),
        ]
        told: Any = None
        for index in (4, 0, 5, 2, 1, 3):
            settlement = done(deliveries[index], arrivals=(parts[index],))
            [told] = store.broker.settle([settlement])
        assert isinstance(told, Completes)
        assert told.parts == tuple(parts)

    def test_arrivals_of_one_batch(self, store: StoreUnderTest, owner: Owner) -> None:
        """settle: in order: of a batch whose last arrival completes, the others are settled."""
        deliveries = self._parts(store, owner, 3)
        batch = [self._in(d, index) for index, d in enumerate(deliveries)]
        *settled, told = store.broker.settle(batch)
        assert settled == [SETTLED, SETTLED]
        assert isinstance(told, Completes)
        assert ids(store.claim(owner)) == ["after-0", "after-1"]

    def test_one_completes_amid_a_batch(self, store: StoreUnderTest, owner: Owner) -> None:
        """settle: an answer completes(parts) does not hold up the settlements behind it."""
        deliveries = self._parts(store, owner, 2)
        store.publish(*messages("x", "y"))
        x, y = store.claim(owner)
        batch = [done(x), *(self._in(d, i) for i, d in enumerate(deliveries)), done(y)]
        answers = store.broker.settle(batch)
        assert [answers[0], answers[1], answers[3]] == [SETTLED] * 3
        assert isinstance(answers[2], Completes)

    def test_several_arrivals_in_one_settlement(self, store: StoreUnderTest, owner: Owner) -> None:
        """Settlement: the arrivals of one settlement are counted together, or none."""
        [delivery] = self._parts(store, owner, 1, size=3)
        both = done(delivery, arrivals=(arrival(0), arrival(1), arrival(2)))
        told = self._told(store, both)
        assert told.parts == (arrival(0), arrival(1), arrival(2))
        assert self._told(store, both).parts == told.parts

    def test_two_joins_in_one_settlement(self, store: StoreUnderTest, owner: Owner) -> None:
        """Settlement: ``tokens`` are for the joins that former tries were told to complete."""
        store.broker.publish(messages("p"), [join("one", 1), join("two", 1)])
        [delivery] = store.claim(owner)
        arrivals = (arrival(0, "one"), arrival(0, "two"))
        tokens: dict[str, str] = {}
        for _ in range(2):
            told = self._told(store, done(delivery, arrivals=arrivals, tokens=dict(tokens)))
            assert told.join not in tokens
            tokens[told.join] = told.token
        assert sorted(tokens) == ["one", "two"]
        assert store.broker.settle([done(delivery, arrivals=arrivals, tokens=tokens)]) == [SETTLED]

    @pytest.mark.parametrize("how", [defer, release, bury])
    def test_whatever_the_verdict(self, store: StoreUnderTest, owner: Owner, how: Any) -> None:
        """settle: completes(parts) leaves the delivery with its owner, whatever the verdict; a
        buried part completes its join as well."""
        [delivery] = self._parts(store, owner, 1)
        more = {"due_at": None} if how is defer else {}
        told = self._told(store, how(delivery, arrivals=(arrival(0),), **more))
        assert store.claim(owner) == []
        again = how(
            delivery,
            arrivals=(arrival(0),),
            tokens={"join": told.token},
            messages=(message("body"),),
            **more,
        )
        assert store.broker.settle([again]) == [SETTLED]
        assert "body" in ids(store.claim(owner))

    # --- never twice

    def test_repeated_before_the_last(self, store: StoreUnderTest, owner: Owner) -> None:
        """Arrival: repeating one changes nothing: it is not two parts, and the first stands."""
        first, second, third = self._parts(store, owner, 3, size=2)
        assert store.broker.settle([done(first, arrivals=(arrival(0),))]) == [SETTLED]
        again = arrival(0, value=b'"another"', state=states.FAILURE)
        assert store.broker.settle([done(second, arrivals=(again,))]) == [SETTLED]
        told = self._told(store, done(third, arrivals=(arrival(1),)))
        assert told.parts == (arrival(0), arrival(1))

    def test_repeated_along_with_the_last(self, store: StoreUnderTest, owner: Owner) -> None:
        """Arrival: nor does one that is repeated by the settlement that completes the join."""
        first, second = self._parts(store, owner, 2)
        store.broker.settle([done(first, arrivals=(arrival(0),))])
        again = arrival(0, value=b'"another"')
        told = self._told(store, done(second, arrivals=(again, arrival(1))))
        assert told.parts == (arrival(0), arrival(1))

    def test_repeated_after_completion(self, store: StoreUnderTest, owner: Owner) -> None:
        """Rule: a join that counts rows fires twice: a repeated arrival never completes."""
        deliveries = self._parts(store, owner, 4, size=2)
        store.broker.settle([self._in(deliveries[0], 0)])
        told = self._told(store, self._in(deliveries[1], 1))
        assert store.broker.settle([self._with_body(deliveries[1], 1, told)]) == [SETTLED]
        again = [done(deliveries[2 + i], arrivals=(arrival(i),)) for i in range(2)]
        assert store.broker.settle(again) == [SETTLED, SETTLED]
        assert ids(store.claim_all(owner)).count("body") == 1

    def test_not_opened_again_after_completion(self, store: StoreUnderTest, owner: Owner) -> None:
        """Join: opening it again changes nothing, after it was completed too."""
        first, second = self._parts(store, owner, 2, size=1)
        told = self._told(store, self._in(first, 0))
        assert store.broker.settle([self._with_body(first, 0, told)]) == [SETTLED]
        store.broker.publish([], [join(size=1)])
        store.results.open_joins([join(size=1)])
        assert store.broker.settle([done(second, arrivals=(arrival(0),))]) == [SETTLED]

    def test_killed_in_between(self, store: StoreUnderTest, owner: Owner) -> None:
        """Rule: killed in between, the redelivered part completes again; the old one's token is
        of no use to it."""
        first, second = self._parts(store, owner, 2)
        store.broker.settle([self._in(first, 0)])
        told = self._told(store, self._in(second, 1))
        [redelivered] = store.broker.recover(owner, Owner("w1", 1, 2), [second.tag])
        told_again = self._told(store, self._in(redelivered, 1))
        assert told_again.parts == told.parts
        assert store.broker.settle([self._with_body(second, 1, told)]) == [LOST]
        answers = store.broker.settle([self._with_body(redelivered, 1, told_again)])
        assert answers == [SETTLED]
        assert ids(store.claim_all(owner)).count("body") == 1

    def test_killed_in_between_with_another_value(
        self, store: StoreUnderTest, owner: Owner
    ) -> None:
        """Completes: nothing of it was done: the value of the part that completes counts."""
        first, second = self._parts(store, owner, 2)
        store.broker.settle([self._in(first, 0)])
        self._told(store, self._in(second, 1))
        other = arrival(1, value=b'"later"')
        assert self._told(store, done(second, arrivals=(other,))).parts == (arrival(0), other)

    @pytest.mark.parametrize("token", ["", "wrong", "join", "0"])
    def test_wrong_token(self, store: StoreUnderTest, owner: Owner, token: str) -> None:
        """settle: a wrong token is as none: Completes again, and nothing is done."""
        [delivery] = self._parts(store, owner, 1)
        attempt = done(
            delivery,
            arrivals=(arrival(0),),
            tokens={"join": token},
            messages=(message("body"),),
            records=(record("p0"),),
        )
        for _ in range(2):
            told = self._told(store, attempt)
        assert store.claim(owner) == []
        assert store.results.get(["p0"]) == [None]
        assert store.broker.settle([self._with_body(delivery, 0, told)]) == [SETTLED]

    def test_stale_token(self, store: StoreUnderTest, owner: Owner) -> None:
        """settle: only the token told last is good: of two who were told, one sends the body."""
        first, second = self._parts(store, owner, 2, size=1)
        told_first = self._told(store, self._in(first, 0))
        told_second = self._told(store, self._in(second, 0))
        if told_first.token != told_second.token:
            assert self._told(store, self._with_body(first, 0, told_first)).parts
            told_second = self._told(store, self._in(second, 0))
        assert store.broker.settle([self._with_body(second, 0, told_second)]) == [SETTLED]
        assert ids(store.claim_all(owner)) == ["after-0", "body"]

    def test_token_after_somebody_else(self, store: StoreUnderTest, owner: Owner) -> None:
        """settle: a token for a join that somebody else has completed: Completes without parts,
        nothing done; without the token and the body it is settled."""
        first, second = self._parts(store, owner, 2, size=1)
        told_second = self._told(store, self._in(second, 0))
        told_first = self._told(store, self._in(first, 0))
        assert store.broker.settle([self._with_body(first, 0, told_first)]) == [SETTLED]
        late = self._told(store, self._with_body(second, 0, told_second))
        assert late.parts == ()
        assert ids(store.claim(owner)) == ["after-0", "body"]
        assert store.broker.settle([done(second, arrivals=(arrival(0),))]) == [SETTLED]
        assert store.claim(owner) == []

    # --- opening

    def test_opened_twice_is_unchanged(self, store: StoreUnderTest, owner: Owner) -> None:
        """Join: opening it again changes nothing: neither its size nor the parts in it."""
        first, second = self._parts(store, owner, 2)
        store.broker.settle([done(first, arrivals=(arrival(0),))])
        store.broker.publish([], [join(size=5)])
        store.results.open_joins([join(size=1)])
        told = self._told(store, done(second, arrivals=(arrival(1),)))
        assert len(told.parts) == 2

    def test_opened_by_a_settlement(self, store: StoreUnderTest, owner: Owner) -> None:
        """Settlement: ``joins`` are opened with it, before what it sends can arrive."""
        store.publish(message("parent"))
        [delivery] = store.claim(owner)
        parts = tuple(messages("p0", "p1", join="inner"))
        settlement = done(delivery, joins=(join("inner", 2),), messages=parts)
        assert store.broker.settle([settlement]) == [SETTLED]
        first, second = store.claim(owner)
        assert (first.message.join, second.message.join) == ("inner", "inner")
        batch = [done(d, arrivals=(arrival(i, "inner"),)) for i, d in enumerate((first, second))]
        answers = store.broker.settle(batch)
        assert answers[0] is SETTLED
        assert isinstance(answers[1], Completes)

    def test_unknown_join(self, store: StoreUnderTest, owner: Owner) -> None:
        """settle: an arrival at an unknown join changes nothing, and is no reason to stay."""
        store.publish(message("p"))
        [delivery] = store.claim(owner)
        assert store.broker.settle([done(delivery, arrivals=(arrival(0, "none"),))]) == [SETTLED]

    def test_expired_join(self, store: StoreUnderTest, owner: Owner) -> None:
        """settle: nor does one at an expired join, whether maintain ran or not."""
        first, second = self._parts(store, owner, 2, size=1, expires_at=store.now() + 5)
        store.advance(6)
        assert store.broker.settle([done(first, arrivals=(arrival(0),))]) == [SETTLED]
        store.results.purge()
        assert store.broker.settle([done(second, arrivals=(arrival(0),))]) == [SETTLED]

    def test_join_survives_reopening(self, store: StoreUnderTest, owner: Owner) -> None:
        """Promise 8: parts that are in stay in when connections come and go."""
        first, second = self._parts(store, owner, 2)
        other = store.connect()
        other.broker.settle([done(first, arrivals=(arrival(0),))])
        other.close()
        assert len(self._told(store, done(second, arrivals=(arrival(1),))).parts) == 2

    def test_many_at_once(self, store: StoreUnderTest, owner: Owner) -> None:
        """Promise 8: last parts that come in at the same moment make one body for each join."""
        joins = [join(f"j{number}", 2) for number in range(25)]
        sides = [
            [message(f"{place.id}-{side}", queue=f"side{side}") for place in joins]
            for side in range(2)
        ]
        store.broker.publish(sides[0] + sides[1], joins)

        def settle_side(side: int) -> int:
            broker = store.connect().broker
            bodies = 0
            mine = Owner(owner.lease, 10 + side, 1)
            for delivery in broker.claim(mine, [f"side{side}"], 100):
                part = arrival(side, delivery.message.id.partition("-")[0])
                settlement = done(delivery, arrivals=(part,))
                [answer] = broker.settle([settlement])
                while isinstance(answer, Completes):
                    bodies += 1
                    settlement = done(
                        delivery,
                        arrivals=(part,),
                        tokens={answer.join: answer.token},
                        messages=(message(f"body-{answer.join}"),),
                    )
                    [answer] = broker.settle([settlement])
                assert answer is SETTLED
            return bodies

        both = [in_background(settle_side, side) for side in range(2)]
        assert sum(one.result(60) for one in both) == 25
        assert sorted(ids(store.claim(owner))) == sorted(f"body-{place.id}" for place in joins)

    # --- helpers

    def _parts(
        self, store: StoreUnderTest, owner: Owner, count: int, size: int = 0, **fields: Any
    ) -> list[Delivery]:
        """So many parts claimed, of a join of as many or of ``size``."""
        batch = messages(*(f"p{index}" for index in range(count)), join="join")
        assert store.broker.publish(batch, [join(size=size or count, **fields)]) == count
        return store.claim(owner)

    def _in(self, delivery: Delivery, index: int) -> Settlement:
        """A part with all that a settlement can bring."""
        return done(
            delivery,
            arrivals=(arrival(index),),
            records=(record(f"p{index}"),),
            messages=(message(f"after-{index}"),),
        )

    def _with_body(self, delivery: Delivery, index: int, told: Completes) -> Settlement:
        plain = self._in(delivery, index)
        return done(
            delivery,
            arrivals=plain.arrivals,
            records=plain.records,
            messages=(*plain.messages, message("body")),
            tokens={told.join: told.token},
        )

    def _told(self, store: StoreUnderTest, settlement: Settlement) -> Completes:
        [answer] = store.broker.settle([settlement])
        assert isinstance(answer, Completes)
        return answer
