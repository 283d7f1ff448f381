"""Attempts, which only grow, and a small place for settings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(36), nullable=False, unique=True),
        sa.Column("item_id", sa.String(200), nullable=False, index=True),
        sa.Column("item_rev", sa.Integer, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(32), nullable=False),
        sa.Column("correct", sa.Boolean, nullable=False),
        sa.Column("response", sa.JSON, nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("hints", sa.Integer, nullable=False),
        sa.Column("undoes", sa.String(36), unique=True),
    )
    op.create_table(
        "kept",
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
