"""Contests: contenders that do the same work in turns, each from the same state, their results compared."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from cluster import Cluster, Cost


@dataclass
class Contender:
    name: str
    run: Callable[[], Cost]
    prepare: Callable[[], None] = lambda: None
    # What the work left; contenders of the same `kind` must leave the same.
    result: Callable[[], object] | None = None
    kind: str = "same"
    size: Callable[[], int] | None = None  # bytes that the work left on disk


@dataclass
class Standing:
    name: str
    costs: list[Cost] = field(default_factory=list)
    size: int | None = None

    @property
    def seconds(self) -> float:
        return median(cost.seconds for cost in self.costs)

    def median(self, what: str) -> float:
        return median(getattr(cost, what) for cost in self.costs)


@dataclass
class Contest:
    """`rows` and `bytes` are what each contender moves: bytes of plain NDJSON."""

    name: str
    rows: int
    bytes: int
    standings: list[Standing]

    def seconds(self, name: str) -> float:
        return next(standing.seconds for standing in self.standings if standing.name == name)

    def ratio(self, standing: Standing) -> float:
        """How many times as fast as the first, which is today's way."""
        return self.standings[0].seconds / standing.seconds


def hold(cluster: Cluster, name: str, rows: int, bytes: int, contenders: list[Contender], rounds: int, say: Callable[[str], None]) -> Contest:
    """Runs all contenders in turns, `rounds` times after one to warm up, and compares what they leave in the first and the last. Each round has an order
    of its own, so that nobody always follows the same neighbour."""
    say(f"{name}: {len(contenders)} contenders, {rounds} rounds")
    contest = Contest(name, rows, bytes, [Standing(contender.name) for contender in contenders])
    expected: dict[str, object] = {}
    for turn in range(rounds + 1):
        order = list(zip(contenders, contest.standings))
        random.Random(turn).shuffle(order)
        for contender, standing in order:
            contender.prepare()
            cluster.sql("checkpoint")
            cost = contender.run()
            if contender.result and turn in (0, rounds):
                result = contender.result()
                if expected.setdefault(contender.kind, result) != result:
                    raise RuntimeError(f"{name}: {contender.name} left {result}, not {expected[contender.kind]}")
            if contender.size:
                standing.size = contender.size()
            if turn > 0:
                standing.costs.append(cost)
    for standing in contest.standings:
        say(f"  {standing.seconds:7.3f} s  {contest.ratio(standing):5.2f}  {standing.name}")
    return contest
