"""A store of as many cells as wanted, written by a few statements: for `benchmarks.browse`."""

import sqlalchemy as sa

import db
from allreview.recipe import Recipe
from db.tables import Base, Dataset, LeakGroup, Reviewer, Run, Snapshot, Subject
from db.tables import Recipe as RecipeRow

CLASSES = ("all", "hem", "lymphocyte", "monocyte", "neutrophil")
SUBJECTS = 500
NUMBERS = (
    "with recursive numbers(i) as (select cast(1 as bigint) union all select i + 1 from numbers where i < {cells}) "
    "select i from numbers"
)
_FACTORS = (742938285, 950706376, 1226874159, 62089911, 1343714438, 630360016, 397204094, 1078318381)
ANNOTATED = 10
"""One cell in so many has a decision."""


def build(engine: sa.Engine, cells: int) -> None:
    """One dataset of so many cells in the order of their subjects, and a finished run over all of them.

    A tenth is annotated: three in ten of these decisions change the label, one in a hundred says *unsure*, one in
    fifty is taken back. The model is right about nineteen cells in twenty, and less sure where it is wrong. The
    parts are whole subjects: 70, 15 and 15 in a hundred. What looks random follows from the cell's number.
    """
    hexadecimal = (
        "printf('%08x%056x', {}, {})"
        if engine.dialect.name == "sqlite"
        else "lpad(to_hex({}), 8, '0') || lpad(to_hex({}), 56, '0')"
    )
    _add_what_is_few(engine)
    filled = ("cells", "cell_files", "snapshot_cells", "predictions", "annotations")
    indexes = [
        index
        for table in filled
        for index in sorted(Base.metadata.tables[table].indexes, key=lambda each: str(each.name))
    ]
    with engine.execution_options(writes=True).begin() as connection:

        def run(statement: str) -> None:
            connection.execute(sa.text(statement))

        if engine.dialect.name == "sqlite":
            run("pragma cache_size = -1000000")  # kB: hashes come in no order
        for index in indexes:
            index.drop(connection)
        run(f"create table numbers as {NUMBERS.format(cells=cells)}")
        run(
            "insert into cells (id, dataset_id, sha256, subject_id, source_label, current_label, fold, width, "
            "height, size_bytes, created_at) "
            f"select i, 1, {hexadecimal.format(f'({_random(1)})', 'i')}, {_subject(cells)}, "
            f"{_class(2)}, {_class(2)}, 'fold_' || (i % 3), 450, 450, 607554, '2026-01-01 00:00:00' from numbers"
        )
        run(
            "insert into cell_files (id, dataset_id, cell_id, subject_id, path, name) "
            "select id, 1, id, subject_id, '/data/cells/' || fold || '/' || source_label || '/UID_' || subject_id || "
            "'_' || id || '_1_' || source_label || '.bmp', 'uid_' || subject_id || '_' || id || '_1_' || source_label "
            "|| '.bmp' from cells order by id"
        )
        run(
            "insert into snapshot_cells (snapshot_id, cell_id, label, part) select 1, id, source_label, case when "
            "subject_id % 20 < 14 then 'train' when subject_id % 20 < 17 then 'validation' else 'test' end from cells "
            "order by id"
        )
        sure = _share(4)
        json = '\'{"all": 0.5, "hem": 0.5}\''
        json = json if engine.dialect.name == "sqlite" else f"cast({json} as jsonb)"
        run(
            "insert into predictions (run_id, cell_id, label, probability, probabilities) "
            f"select 1, i, said, p, {json} from (select i, case when {_share(3)} < 0.95 then "
            f"source_label when source_label = 'all' then 'hem' else 'all' end as said, "
            f"case when {_share(3)} < 0.95 then 1 - 0.6 * {sure} * {sure} * {sure} else 0.4 + 0.6 * {sure} end as p "
            "from numbers join cells on cells.id = i) said_of_each order by i"
        )
        run(
            "insert into annotations (id, cell_id, sequence, kind, label, reviewer_id, repeat, created_at) "
            f"select row_number() over (order by {_random(5)}), i, 1, 'decision', case when {_share(6)} < 0.01 then "
            f"'unsure' when {_share(6)} < 0.31 then {_class(7)} else source_label end, 1, false, '2026-01-02 00:00:00' "
            f"from numbers join cells on cells.id = i where {_share(8)} < {1 / ANNOTATED}"
        )
        run(
            "insert into annotations (id, cell_id, sequence, kind, undoes_id, reviewer_id, repeat, created_at) "
            f"select {cells} + id, cell_id, 2, 'undo', id, 1, false, '2026-01-03 00:00:00' from annotations "
            "where id % 50 = 0"
        )
        run(
            "update cells set standing_id = a.id, current_label = a.label from annotations a "
            "where a.cell_id = cells.id and a.label is not null and a.id % 50 <> 0"
        )
        run("drop table numbers")
        for index in indexes:
            index.create(connection)
    if engine.dialect.name == "postgresql":  # as its autovacuum does after a while
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("vacuum analyze")


def _add_what_is_few(engine: sa.Engine) -> None:
    recipe = Recipe()
    with db.writing(engine) as session:
        session.add_all(
            [
                Dataset(id=1, name="Many", classes=list(CLASSES)),
                Reviewer(id=1, name="Ann"),
                RecipeRow(id=1, hash=recipe.hash, body=recipe.model_dump()),
            ]
        )
        session.flush()
        session.add_all(LeakGroup(id=number, dataset_id=1) for number in range(1, SUBJECTS + 1))
        session.add(Snapshot(id=1, dataset_id=1, hash="0" * 64))
        session.flush()
        session.add_all(
            Subject(id=number, dataset_id=1, name=f"P{number * 7919 % 10_007:05}", leak_group_id=number)
            for number in range(1, SUBJECTS + 1)
        )
        run = Run(id=1, dataset_id=1, recipe_id=1, snapshot_id=1, classes=list(CLASSES), state="finished")
        session.add(run)


def _random(stream: int) -> str:
    """SQL: a number below 2^31 that looks random, for the cell `i`."""
    return f"(i * {_FACTORS[stream - 1]} % 2147483647 * 16807 % 2147483647)"


def _share(stream: int) -> str:
    return f"({_random(stream)} / 2147483647.0)"


def _subject(cells: int) -> str:
    return f"1 + i * {SUBJECTS - 1} / {cells}"


def _class(stream: int) -> str:
    """SQL: a class, the last of them rare: 64, 30, 5, 0.9 and 0.1 cells in a hundred."""
    limits = (0.64, 0.94, 0.99, 0.999)
    cases = " ".join(
        f"when {_share(stream)} < {limit} then '{name}'" for name, limit in zip(CLASSES, limits, strict=False)
    )
    return f"case {cases} else '{CLASSES[-1]}' end"
