"""Leak groups: subjects tied together by identical cells, so that no split puts one picture on both sides."""

from collections.abc import Iterable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from db.tables import LeakGroup, Subject

Member = TypeVar("Member", bound=int | str)


def join_members(members: Iterable[Member], ties: Iterable[Iterable[Member]]) -> dict[Member, Member]:
    """For each member the smallest one it is tied to, directly or through others (itself when alone).

    Union-find with path halving (Tarjan & van Leeuwen 1984). Members that only ties name are included.
    """
    parent = {member: member for member in members}

    def find(member: Member) -> Member:
        parent.setdefault(member, member)
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for tie in ties:
        roots = sorted({find(member) for member in tie})  # pyright: ignore[reportArgumentType]
        for root in roots[1:]:
            parent[root] = roots[0]
    return {member: find(member) for member in parent}


def join_subjects(session: Session, dataset_id: int, ties: Iterable[Iterable[int]]) -> None:
    """Merge the leak groups of tied subjects (ids) of a dataset.

    Merged subjects move to the smallest group's id, and groups left empty are deleted. Subjects that were
    joined before stay joined.
    """
    rows = session.execute(
        sa.select(Subject.id, Subject.leak_group_id).where(Subject.dataset_id == dataset_id)
    )
    group_of = {row.id: row.leak_group_id for row in rows}
    moved = {
        group: target
        for group, target in join_members(
            set(group_of.values()), ({group_of[subject] for subject in tie} for tie in ties)
        ).items()
        if group != target
    }
    if moved:
        rows = [{"left": group, "joined": target} for group, target in moved.items()]
        left, joined = sa.bindparam("left"), sa.bindparam("joined")
        connection = session.connection()
        connection.execute(
            sa.update(Subject).where(Subject.leak_group_id == left).values(leak_group_id=joined), rows
        )
        connection.execute(sa.delete(LeakGroup).where(LeakGroup.id == left), rows)


def add_subjects(session: Session, dataset_id: int, names: Iterable[str]) -> dict[str, int]:
    """Add new subjects, each in a leak group of its own; gives their ids by name."""
    ordered = sorted(set(names))
    if not ordered:
        return {}
    groups = session.scalars(
        sa.insert(LeakGroup).returning(LeakGroup.id, sort_by_parameter_order=True),
        [{"dataset_id": dataset_id} for _ in ordered],
    ).all()
    subjects = session.scalars(
        sa.insert(Subject).returning(Subject.id, sort_by_parameter_order=True),
        [
            {"dataset_id": dataset_id, "name": name, "leak_group_id": group}
            for name, group in zip(ordered, groups, strict=True)
        ],
    ).all()
    return dict(zip(ordered, subjects, strict=True))
