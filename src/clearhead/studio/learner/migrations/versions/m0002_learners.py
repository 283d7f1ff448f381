"""Several learners in one database: each attempt and each setting says whose it is; 0 where there are no accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ATTEMPT = "number, id, item_id, item_rev, at, mode, correct, response, seconds, seed, confidence, hints, undoes"


def upgrade() -> None:
    op.create_table(
        "learners",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(60), nullable=False, unique=True),
        sa.Column("password", sa.Text, nullable=False),
    )
    op.drop_index("ix_attempts_item_id", "attempts")
    op.rename_table("attempts", "attempts_0001")
    op.create_table(
        "attempts",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("learner", sa.Integer, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("item_id", sa.String(200), nullable=False),
        sa.Column("item_rev", sa.Integer, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("correct", sa.Boolean, nullable=False),
        sa.Column("response", sa.JSON, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("hints", sa.Integer, nullable=False),
        sa.Column("undoes", sa.String(36)),
        sa.UniqueConstraint("learner", "id"),
        sa.UniqueConstraint("learner", "undoes"),
    )
    op.create_index("ix_attempts_learner_number", "attempts", ["learner", "number"])
    op.execute(f"INSERT INTO attempts (learner, {ATTEMPT}) SELECT 0, {ATTEMPT} FROM attempts_0001")  # noqa: S608 — constants
    op.drop_table("attempts_0001")
    op.rename_table("kept", "kept_0001")
    op.create_table(
        "kept",
        sa.Column("learner", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.execute("INSERT INTO kept (learner, key, value) SELECT 0, key, value FROM kept_0001")
    op.drop_table("kept_0001")
    if op.get_bind().dialect.name == "postgresql":  # rows were copied with their numbers: count on from the last
        op.execute(
            "SELECT setval(pg_get_serial_sequence('attempts', 'number'), (SELECT max(number) FROM attempts))"
            " WHERE EXISTS (SELECT 1 FROM attempts)"
        )
