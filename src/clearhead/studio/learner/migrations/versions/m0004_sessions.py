"""Sessions, so that logging out ends one."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("learner", sa.Integer, nullable=False, index=True),
        sa.Column("since", sa.Float, nullable=False),
    )
