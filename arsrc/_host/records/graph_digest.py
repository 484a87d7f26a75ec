"""Texts for the nodes of a graph: two have the same one if nobody who follows the parts can tell them apart."""

import collections
import hashlib
from collections.abc import Iterator, Sequence

Parts = Sequence[str | int]  # texts, and numbers of nodes


def digests(labels: Sequence[str], parts: Sequence[Parts], unordered: set[int]) -> list[str]:
    """Return a text for each node, from its label, its parts in order and their parts; linear but for circles.

    Args:
        labels: What each node is without its parts.
        parts: What each node is made of. Node 0 reaches all others.
        unordered: The nodes whose parts have no order.
    """
    found: dict[int, str] = {}

    def digest(node: int, around: dict[int, str]) -> str:
        texts = [
            part if isinstance(part, str) else "#" + (around if part in around else found)[part] for part in parts[node]
        ]
        return _hash([repr(labels[node]), *(sorted(texts) if node in unordered else texts)])

    inner = [[part for part in each if isinstance(part, int)] for each in parts]
    for knot in _knots(inner):
        if len(knot) == 1 and knot[0] not in inner[knot[0]]:
            found[knot[0]] = digest(knot[0], found)
            continue
        now = dict.fromkeys(knot, "")
        while True:  # what is in circles is alike until its parts tell it apart, or theirs
            then, now = now, {node: digest(node, now) for node in knot}
            if len({*then.values()}) == len({*now.values()}):
                break
        # With all that there is in the circles: by itself, each text says no more than what lies a few steps away.
        table = _hash(sorted({f"{then[node]} {now[node]}" for node in knot}))
        found |= {node: _hash([then[node], table]) for node in knot}
    return [found[node] for node in range(len(labels))]


def sharing(parts: Sequence[Parts], texts: Sequence[str], alone: set[int], unordered: set[int]) -> list[int]:
    """Return where those of the nodes `alone` that are alike are met, as a number for each in the order of the graph.

    Raises:
        LookupError: This node has no order and holds some that are alike: nothing tells which is which.
    """
    num_alike = collections.Counter(texts[node] for node in alone)
    twins = {node for node in alone if num_alike[texts[node]] > 1}
    met: list[int] = []
    numbers: dict[int, int] = {}
    walk, seen = [0] if twins else [], {0}
    for node in walk:
        inner = [part for part in parts[node] if isinstance(part, int)]
        if node in unordered:
            if len({texts[part] for part in inner}) < len(inner):
                raise LookupError(node)
            inner.sort(key=texts.__getitem__)
        met += [numbers.setdefault(part, len(numbers)) for part in inner if part in twins]
        walk += [part for part in dict.fromkeys(inner) if part not in seen]
        seen.update(inner)
    return met


def _knots(parts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the nodes, those in circles with each other together, and after all that they are made of (Gabow 2000)."""
    order, closed = {0: 0}, set[int]()
    path, starts, walk = [0], [0], [(0, iter(parts[0]))]
    while walk:
        node, rest = walk[-1]
        for part in rest:
            if part not in order:
                order[part] = len(order)
                path.append(part)
                starts.append(part)
                walk.append((part, iter(parts[part])))
                break
            while part not in closed and order[starts[-1]] > order[part]:
                starts.pop()
        else:
            walk.pop()
            if starts[-1] == node:
                starts.pop()
                at = len(path) - 1
                while path[at] != node:
                    at -= 1
                yield (knot := path[at:])
                closed.update(knot)
                del path[at:]


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
