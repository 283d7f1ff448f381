"""The newest layout of the database. `migrations/` brings older ones up to it."""

from typing import Final

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table, Text, UniqueConstraint

LOCAL: Final = 0  # the learner of a studio without accounts
metadata = MetaData()

attempts = Table(
    "attempts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("learner", Integer, nullable=False),
    Column("id", String(36), nullable=False),
    Column("item_id", String(200), nullable=False),
    Column("item_rev", Integer, nullable=False),
    Column("at", String(32), nullable=False),  # ISO 8601, UTC: sorts as text and reads in any tool
    Column("mode", String(32), nullable=False),
    Column("correct", Boolean, nullable=False),
    Column("response", JSON, nullable=False),
    Column("seconds", Float),
    Column("seed", Integer, nullable=False),
    Column("confidence", Float),
    Column("hints", Integer, nullable=False),
    Column("undoes", String(36)),
    UniqueConstraint("learner", "id"),
    UniqueConstraint("learner", "undoes"),
)

kept = Table(
    "kept",
    metadata,
    Column("learner", Integer, primary_key=True, autoincrement=False),
    Column("key", String(200), primary_key=True),
    Column("value", Text, nullable=False),
)

learners = Table(
    "learners",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(60), nullable=False, unique=True),
    Column("password", Text, nullable=False),  # a hash; empty until the invitation is accepted
)

waits = Table(
    "waits",
    metadata,
    Column("key", String(64), primary_key=True),  # a keyed hash of a name, browser or address that tried to log in
    Column("failures", Integer, nullable=False),
    Column("last", Float, nullable=False),  # seconds since 1970
)

sessions = Table(
    "sessions",
    metadata,
    Column("key", String(64), primary_key=True),  # the SHA-256 of the token in the browser's cookie
    Column("learner", Integer, nullable=False, index=True),
    Column("since", Float, nullable=False),  # seconds since 1970
)
