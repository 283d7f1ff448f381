"""Keys and types of an item's front matter and of pack.toml, from which the JSON schemas are generated."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clearhead.errors import PackError

Model = TypeVar("Model", bound=BaseModel)
ID = "[a-z0-9][a-z0-9-]{0,63}"
Id = Annotated[str, Field(pattern=f"^{ID}$", description="lower-case letters, digits and hyphens")]

Experiment = Literal[
    "dots", "layers", "scale", "length", "hard", "heads", "source", "asked", "window", "positions", "turns", "dropout",
    "cache", "blocks", "depth", "copying", "influence", "memory",
]  # fmt: skip


class Front(BaseModel):
    """The TOML between the +++ lines of an item."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Clearhead item")

    id: Id = Field(description="immutable: a learner's history depends on it; the same as the file's name")
    kind: Literal["card", "choice", "predict", "debug", "tune", "worked", "explain", "code", "order", "match"]
    topic: Id = Field(description="id of a topic in pack.toml")
    concepts: list[Id] = Field(min_length=1, description="what it exercises; mastery is kept for each")
    title: str = Field(default="", max_length=120, description="a short name for lists; must not give the answer away")
    rev: int = Field(default=1, ge=1, description="add one with each edit")
    change: Literal["cosmetic", "semantic"] = Field(
        default="semantic", description="the last edit: cosmetic keeps the schedule, semantic queues the item again"
    )
    meaning_rev: int | None = Field(default=None, ge=1, description="the last rev that changed what is asked")
    difficulty: int = Field(default=2, ge=1, le=5, description="1 easy to 5 hard; Elo corrects it")
    attempts: int = Field(default=2, ge=1, le=10, description="tries before the answer is shown")
    time_limit: int | None = Field(
        default=None, ge=1, le=600, description="seconds on Challenge's clock; 90 to 600 by kind if it is not given"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="the first seed")
    variants: bool = Field(default=False, description="another seed gives other numbers; reviews use new seeds")
    right: int = Field(default=1, ge=1, le=10, description="how many options are right (choice)")
    tolerance: float = Field(default=0.0, ge=0.0, description="largest difference at which a typed number is right")
    unit: str = Field(default="", max_length=24, description="shown after a number; ignored when typed")
    evidence: Literal["program", "definition"] = Field(default="program", description="definition needs a `source`")
    source: str = Field(default="", max_length=300, description="paper and equation, or a documentation page")


class ChallengeFront(BaseModel):
    """One [[topics.challenges]] table of pack.toml: five items of the topic."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id
    title: str = Field(min_length=1, max_length=80)
    summary: str = Field(default="", max_length=300)
    predict: Id = Field(description="id of a predict item: predict the output")
    choose: Id = Field(description="id of a choice item: choose the model")
    tune: Id = Field(description="id of a tune item")
    debug: Id = Field(description="id of a debug item")
    concept: Id = Field(description="id of a choice, match, order or explain item")


WALK = "the figure that Walk shows, where the topic has no page walk.md"
INTERVIEW = "a row of item ids for each subject of an interview, in the order in which it is asked"
EXPERIMENTS = "what Experiment measures, the topic's own first"


class TopicFront(BaseModel):
    """One [[topics]] table of pack.toml."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id
    title: str = Field(min_length=1, max_length=80)
    summary: str = Field(min_length=1, max_length=300)
    minutes: int = Field(default=5, ge=1, le=120)
    needs: list[Id] = Field(default_factory=list, description="topics that come before it and that it builds on")
    walk: Literal["", "products", "one-head", "causal", "heads"] = Field(default="", description=WALK)
    experiments: list[Experiment] = Field(default_factory=list, description=EXPERIMENTS)
    challenges: list[ChallengeFront] = Field(default_factory=list, description="five problems each")


class PackFront(BaseModel):
    """pack.toml."""

    model_config = ConfigDict(extra="forbid", strict=True, title="Clearhead pack")

    id: Id
    title: str = Field(min_length=1, max_length=80)
    summary: str = Field(min_length=1, max_length=300)
    version: str = Field(pattern=r"^\d+\.\d+(\.\d+)?$")
    preload: list[Literal["torch", "numpy"]] = Field(default_factory=list, description="imported before the programs")
    interview: list[list[Id]] = Field(default_factory=list, description=INTERVIEW)
    topics: list[TopicFront] = Field(min_length=1)
    misconceptions: dict[Id, str] = Field(default_factory=dict, description="id -> what its holder believes")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def read_front(model: type[Model], data: dict[str, Any], lines: dict[str, int], file: str) -> Model:
    """Validate `data`; the first error becomes a PackError at the line of its key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
        key = str(where[0]) if where else ""
        name = ".".join(map(str, where))[:120]
        if first["type"] == "missing":
            problem = f"`{name}` is missing"
        elif first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            problem = f"unknown key `{name}`; known keys: {known}"
        else:
            problem = f"`{name}`: {first['msg']} (got {_shortened(first['input'])})"
        raise PackError(problem, file=file, line=lines.get(key, 1)) from None
