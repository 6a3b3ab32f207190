"""Union-find against the definition: members share a group exactly when ties lead from one to the other."""

from hypothesis import given
from hypothesis import strategies as st

from allreview.cells.leak_groups import join_members

MEMBERS = st.integers(0, 15)


def reachable(start: int, ties: list[set[int]]) -> set[int]:
    found, before = {start}, set()
    while found != before:
        before = set(found)
        for tie in ties:
            if tie & found:
                found |= tie
    return found


@given(st.sets(MEMBERS), st.lists(st.sets(MEMBERS, max_size=4)))
def test_members_are_joined_exactly_when_ties_lead_there(members: set[int], ties: list[set[int]]) -> None:
    groups = join_members(members, ties)
    assert groups.keys() == members.union(*ties)
    for member, smallest in groups.items():
        assert smallest == min(reachable(member, ties))


def test_a_long_chain_is_one_group() -> None:
    assert set(join_members(range(5000), ([i, i + 1] for i in range(4999))).values()) == {0}
