"""Races: all contestants on the same files in one process, taking turns; how their rates are measured.

A rate is records delivered per second in the steady state. Whatever a contestant reads ahead while it is not
measured would be a head start, and would slow down the one whose turn it is. So each turn begins anew with one
untimed piece of work, which uses up any head start, and ends by waiting until the process is idle.
"""

import contextlib
import dataclasses
import faulthandler
import math
import signal
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from _data import Bytes, DataSet
from _quiet import Pulse, cpu_seconds, settle

_OPEN_LIMIT_S = 300
_TURN_LIMIT_S = 120
_GAP_S = 2.0  # nothing but a machine that stands still keeps a thread from waking up for so long
_MOST_TRIES = 3

Pieces = Generator[tuple[int, Callable[[], Any]], None, None]


class Unable(Exception):
    """A contestant cannot take part, for the reason given."""


class WrongDelivery(Exception):
    """A contestant delivers what it should not."""


@dataclasses.dataclass(frozen=True)
class Session:
    """An opened contestant.

    Attributes:
        pieces: `pieces(turn)` gives an endless iterator; each item is a piece of work that was begun: how many
            records it delivers, and what waits for its end. A turn begins anew, with another order.
        batches: Gives a few batches u8[n, record_bytes] as they are delivered, for the check. None: delivers none.
    """

    pieces: Callable[[int], Pieces]
    batches: Callable[[], Iterable[Any]] | None


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One way to get records to where they are used.

    Attributes:
        name: As in the tables.
        family: "arsrc", "floor" (what nothing can beat), "official" (array_record), or the peer's name.
        counts: What its time includes.
        open: Gives a context of a `Session`. Raises `ImportError` or `Unable` where it cannot.
        shuffled: Whether a few batches must hold records from all over the data set.
    """

    name: str
    family: str
    counts: str
    open: Callable[[], contextlib.AbstractContextManager[Session]]
    shuffled: bool = True


class Files(Protocol):
    """Files that a race is run on."""

    @property
    def description(self) -> str:
        """For the tables."""

    def prepare(self) -> None:
        """Write what is not there, and read all through, so that it is in the page cache."""


@dataclasses.dataclass(frozen=True)
class Race:
    """Contestants that are measured together.

    Attributes:
        name: For the command line.
        question: What it shows.
        data: The files; the first set, records of one length, is what deliveries are checked against.
        contestants: Makes them, when the race begins.
        rounds: Turns of each contestant.
        seconds: Least time of a turn.
        unit: Records of one unit of work, and its name: for the time of it in the table.
        idle_limit_s: How long to wait at most, before each turn, until nobody works.
        counted: What rates count, in the singular.
        until: When, by `time.perf_counter`, the rounds behind the first shall be over.
        end: When all is to be over: from then on nobody is opened any more, nor begins the first round.
    """

    name: str
    question: str
    data: Sequence[Files]
    contestants: Callable[[], Sequence[Contestant]]
    rounds: int
    seconds: float
    unit: tuple[int, str]
    idle_limit_s: float = 20.0
    counted: str = "record"
    until: float = math.inf
    end: float = math.inf


@dataclasses.dataclass
class Outcome:
    """What a contestant did.

    Attributes:
        family: Its family.
        counts: What its time includes.
        rates: Records per second in each round.
        cpu_seconds: CPU time of all threads and workers per record in each round.
        failure: Why there are none.
        is_broken: Whether that is an error, and not that it cannot take part here.
        num_repeated: Turns that were repeated since the machine stood still.
    """

    family: str
    counts: str
    rates: list[float] = dataclasses.field(default_factory=list)
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)
    failure: str | None = None
    is_broken: bool = False
    num_repeated: int = 0

    @property
    def median(self) -> float:
        """Median rate; 0 if there is none."""
        return statistics.median(self.rates) if self.rates and self.failure is None else 0.0


def run(race: Race, say: Callable[[str], None]) -> dict[str, Outcome]:
    """Open all contestants, check what they deliver, and let them take turns; returns outcomes by name."""
    contestants = race.contestants()
    outcomes = {one.name: Outcome(one.family, one.counts) for one in contestants}
    with contextlib.ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for one in contestants:
            with _failing(outcomes[one.name]), _time_limit(_OPEN_LIMIT_S):
                _check_time(race.end)
                session = stack.enter_context(one.open())
                _check(one, session, race.data[0])
                sessions[one.name] = session
            _report_failure(one, outcomes[one.name], say)
        longest = 0.0
        for turn in range(race.rounds):
            begin = time.perf_counter()
            if turn and begin + longest > race.until:
                break
            say(f"{race.name}: round {turn + 1} of {race.rounds}, {len(sessions)} contestants")
            for name, session in list(sessions.items()):
                settle(race.idle_limit_s)
                with _failing(outcomes[name]):
                    _check_time(math.inf if turn else race.end)
                    _turn(session, turn, race.seconds, outcomes[name])
                if outcomes[name].failure is not None:
                    say(f"  {name}: {outcomes[name].failure}")
                    del sessions[name]
            longest = max(longest, time.perf_counter() - begin)
    settle(race.idle_limit_s)
    return outcomes


def _check_time(end: float) -> None:
    if time.perf_counter() > end:
        raise Unable("left out: the time for all cases was over")


def _turn(session: Session, turn: int, seconds: float, outcome: Outcome) -> None:
    """Note the rates of one turn; it is repeated if the machine stood still."""
    for _ in range(_MOST_TRIES):
        rates = 0.0, 0.0
        with Pulse() as pulse:
            try:
                with _time_limit(_TURN_LIMIT_S):
                    rates = _rates(session, turn, seconds)
            except TimeoutError:
                if pulse.gap_s < _GAP_S:
                    raise
        if pulse.gap_s < _GAP_S:
            outcome.rates.append(rates[0])
            outcome.cpu_seconds.append(rates[1])
            return
        outcome.num_repeated += 1
    raise Unable(f"the machine stood still in {_MOST_TRIES} turns, one after the other")


def _rates(session: Session, turn: int, seconds: float) -> tuple[float, float]:
    """Return records per second, and CPU seconds per record, from the end of a first piece to that of a later one."""
    with contextlib.closing(session.pieces(turn)) as pieces:
        next(pieces)[1]()
        num_records, begin, cpu_begin = 0, time.perf_counter(), cpu_seconds()
        while True:
            piece, wait = next(pieces)
            num_records += piece
            if time.perf_counter() - begin >= seconds:
                wait()
                return num_records / (time.perf_counter() - begin), (cpu_seconds() - cpu_begin) / num_records


def _check(one: Contestant, session: Session, data: Files) -> None:
    """Compare what a contestant delivers with what the files hold."""
    if session.batches is None:
        return
    assert isinstance(data, DataSet)
    batches = [np.asarray(batch) for batch in session.batches()]
    if any(batch.dtype != np.uint8 or batch.shape[1:] != (data.record_bytes,) for batch in batches):
        raise WrongDelivery("batches of another type or shape")
    records: Bytes = np.concatenate(batches)
    ids = data.record_ids(records)
    if not len(ids) or ids.min() < 0 or ids.max() >= data.num_records:
        raise WrongDelivery("records that are not in the files")
    if (records != data.expected(ids)).any():
        raise WrongDelivery("other bytes than the files hold")
    if len(np.unique(ids)) < len(ids):
        raise WrongDelivery("records twice")
    if (np.diff(ids) > 0).all() or (one.shuffled and np.ptp(ids) < 0.8 * data.num_records):
        raise WrongDelivery("records in order, or from one place")


@contextlib.contextmanager
def _failing(outcome: Outcome) -> Iterator[None]:
    """Note why a contestant fails instead of ending the race."""
    try:
        yield
    except ImportError as error:
        outcome.failure = f"not installed ({error.name})"
    except Unable as error:
        outcome.failure = str(error)
    except Exception as error:  # a peer may raise anything
        text = str(error).strip().splitlines() or [""]
        outcome.is_broken = True
        outcome.failure = f"failed: {type(error).__name__}: {text[0][:200]}"


def _report_failure(one: Contestant, outcome: Outcome, say: Callable[[str], None]) -> None:
    if outcome.failure is not None:
        say(f"  {one.name}: {outcome.failure}")


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in the main thread where a peer hangs; before, print what all threads are doing."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds / 3)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
