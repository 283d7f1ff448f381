"""The load test's learners, who log in, answer and run programs over real sockets; one of them is hostile."""

import asyncio
import contextlib
import json
import random
import re
import resource
import sys
import time
from asyncio import StreamReader, StreamWriter
from dataclasses import asdict, dataclass, field
from http.cookies import SimpleCookie
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

TIMEOUT = 60  # seconds for one response
PATIENCE = 12  # how often a request is sent while the studio or its database is down
TICKET = re.compile(r'name="ticket" value="([^"]+)"')
CSRF = re.compile(r'<meta name="csrf" content="([^"]+)"')
LETTER = re.compile(r'name="response" value="([a-z])"')
TYPED = 'name="typed"'


@dataclass
class Plan:
    """What one process of learners should do.

    Args:
        base: the studio's address.
        names: the accounts' names; all have `password`.
        programs: how many of them, from the first, also run programs.
        hostile: the name of an account that sends requests as fast as it can; "" for none.
        items: ids of questions with options.
        tries: the address of a page that runs programs, and an item on it.
        solution: the id of a question that is answered by a program, and a right program.
        within: the seconds within which all log in.
        thinking: mean seconds of thought before each answer; from half to one and a half times as many.
        until: the time at which everything ends.
    """

    base: str
    names: list[str]
    password: str
    programs: int
    hostile: str
    items: list[str]
    tries: tuple[str, str]
    solution: tuple[str, str]
    within: float
    thinking: float
    until: float


@dataclass
class Seen:
    """What one process of learners measured.

    Attributes:
        took: the seconds of every page, by kind.
        sent: the learner's name, once for each answered question, however often the form was sent.
        answered: the attempts that the studio acknowledged, "name id" -> time.
        errors: each error and how often it occurred.
        cpu: processor seconds.
    """

    took: dict[str, list[float]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    answered: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0


def answer_form(page: str, program: str = "") -> dict[str, str]:
    """The form fields that answer this page's question: a program, an option, or an output if there are no options."""
    ticket, letter = TICKET.search(page), LETTER.search(page)
    if ticket and program:
        return {"ticket": ticket[1], "program": program}
    if ticket is None or not (letter or TYPED in page):
        return {}
    return {"ticket": ticket[1], **({"response": letter[1]} if letter else {"typed": "0.5"})}


class Response(NamedTuple):
    """The studio's response; `location` is "" if it does not redirect."""

    status: int
    location: str
    text: str


class Browser:
    """A minimal browser: kept HTTP/1.1 connections and cookies.

    A general client uses more processor time for a request than the studio, which is measured on the same cores.
    """

    def __init__(self, base: str) -> None:
        where = urlsplit(base)
        self._host, self._port = str(where.hostname), int(where.port or 80)
        self._cookies: dict[str, str] = {}
        self._idle: list[tuple[StreamReader, StreamWriter]] = []

    async def request(self, method: str, address: str, form: dict[str, str]) -> Response:
        """Send a request. Raises OSError (also TimeoutError) or EOFError if no complete response arrives."""
        body = urlencode(form) if method == "POST" else ""
        lines = [f"{method} {address} HTTP/1.1", f"host: {self._host}:{self._port}", "accept: text/html"]
        if self._cookies:
            lines.append("cookie: " + "; ".join(f"{name}={value}" for name, value in self._cookies.items()))
        if body:
            lines += ["content-type: application/x-www-form-urlencoded", f"content-length: {len(body)}"]
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await self._connection()
            try:
                writer.write("\r\n".join([*lines, "", body]).encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = [line.partition(": ")[::2] for line in head[1:] if line]
                headers = {name.lower(): value for name, value in fields}
                text = (await reader.readexactly(int(headers["content-length"]))).decode()
            except BaseException:
                writer.close()
                raise
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        for name, value in fields:
            if name.lower() == "set-cookie":
                self._cookies.update((key, kept.value) for key, kept in SimpleCookie(value).items())
        return Response(int(head[0].split()[1]), headers.get("location", ""), text)

    async def _connection(self) -> tuple[StreamReader, StreamWriter]:
        """Return an idle connection, or a new one."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()


class Learner:
    """One account with its browser."""

    def __init__(self, plan: Plan, name: str, seen: Seen) -> None:
        self.plan, self.name, self.seen = plan, name, seen
        self.browser = Browser(plan.base)
        self.csrf = ""

    async def send(self, kind: str, method: str, address: str, **form: str) -> Response | None:
        """Send a timed request, again while the studio is down. Returns None if no response arrives."""
        for _ in range(PATIENCE):
            if time.time() > self.plan.until + 30:
                return None
            began = time.perf_counter()
            try:
                response = await self.browser.request(method, address, {"csrf": self.csrf, **form})
            except (OSError, EOFError) as problem:
                self._wrong(f"{kind}: {type(problem).__name__}")
            else:
                if response.status < 500:
                    self.seen.took.setdefault(kind, []).append(time.perf_counter() - began)
                    if found := CSRF.search(response.text):
                        self.csrf = found[1]
                    return response
                self._wrong(f"{kind}: {response.status}")
            await asyncio.sleep(1)
        return None

    async def log_in(self) -> bool:
        await self.send("login page", "GET", "/login")
        done = await self.send("login", "POST", "/login", name=self.name, password=self.plan.password)
        return done is not None and done.status == 303

    async def answer(self, item: str, program: str = "") -> None:
        """Read a question, think, answer it, with a program if one is given, and read the feedback."""
        page = await self.send("question", "GET", f"/items/{item}")
        form = answer_form(page.text, program) if page else {}
        if not form:
            return
        await self.think()
        self.seen.sent.append(self.name)
        done = await self.send("judged program" if program else "answer", "POST", "/answer", **form)
        where = done.location if done else ""
        if found := re.match(r"/attempts/([^/?]+)", where):
            self.seen.answered[f"{self.name} {found[1]}"] = time.time()
            await self.send("feedback", "GET", where)

    async def run(self) -> None:
        address, item = self.plan.tries
        program = f"print(sum(range({random.randrange(9999)})))"  # noqa: S311 — made-up work
        await self.send("program", "POST", address, item=item, program=program)

    async def think(self) -> None:
        await asyncio.sleep(self.plan.thinking * random.uniform(0.5, 1.5))  # noqa: S311 — as above

    def _wrong(self, what: str) -> None:
        self.seen.errors[what] = self.seen.errors.get(what, 0) + 1


async def learn(plan: Plan, name: str, seen: Seen, runs: bool) -> None:
    """A learner who answers questions until the end, and runs programs if `runs`."""
    learner = Learner(plan, name, seen)
    await asyncio.sleep(random.uniform(0, plan.within))  # noqa: S311 — made-up arrival
    with contextlib.closing(learner.browser):
        if not await learner.log_in():
            return
        while time.time() < plan.until:
            await learner.send("home", "GET", "/")
            for item in random.sample(plan.items, min(3, len(plan.items))):
                await learner.think()
                if time.time() > plan.until:
                    return
                await learner.answer(item)
            if runs:
                await learner.run()
                await learner.answer(*plan.solution)


async def hammer(plan: Plan, seen: Seen) -> None:
    """A hostile learner, who sends very long texts and endless programs, eight at a time."""
    learner = Learner(plan, plan.hostile, Seen())
    with contextlib.closing(learner.browser):
        if not await learner.log_in():
            return
        address, item = plan.tries

        async def one() -> None:
            while time.time() < plan.until:
                long = random.choice((" ", "a. ", "1e", "[", "`")) * 20_000  # noqa: S311 — as above
                await learner.send(
                    "hostile", "POST", address, item=item, program="while True: pass", prediction=long[:20_000]
                )
                await learner.send("hostile", "POST", "/notes", item=plan.items[0], text=long)
                await learner.send("hostile", "GET", "/search?q=" + "a%20" * 2000)
                await asyncio.sleep(0.05)

        await asyncio.gather(*(one() for _ in range(8)))
    seen.errors["hostile requests"] = sum(map(len, learner.seen.took.values()))


async def _all(plan: Plan) -> Seen:
    seen = Seen()
    work = [learn(plan, name, seen, place < plan.programs) for place, name in enumerate(plan.names)]
    if plan.hostile:
        work.append(hammer(plan, seen))
    await asyncio.gather(*work)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seen.cpu = used.ru_utime + used.ru_stime
    return seen


def main() -> None:
    """Read a plan from stdin and write the measurements to stdout."""
    given = json.load(sys.stdin)
    print(json.dumps(asdict(asyncio.run(_all(Plan(**given))))))


if __name__ == "__main__":
    main()
