"""Learners over real sockets for the load test: a process of them logs in, answers, runs programs; one is hostile."""

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

TIMEOUT = 60  # seconds for one answer
PATIENCE = 12  # tries to send a form again while the studio or its database is away
TICKET = re.compile(r'name="ticket" value="([^"]+)"')
CSRF = re.compile(r'<meta name="csrf" content="([^"]+)"')
LETTER = re.compile(r'name="response" value="([a-z])"')
TYPED = 'name="typed"'


@dataclass
class Plan:
    """What one process of learners does.

    Args:
        names: of the accounts; all have `password`.
        programs: the first so many run programs between their answers.
        hostile: the name of an account that hammers as fast as it can; "" for none.
        items: ids of questions with options.
        tries: the address of a page that runs programs, and an item of it.
        solution: the id of a question that is answered by a program, and a right one.
        within: seconds within which all log in. thinking: seconds between two pages, at most twice as many.
        until: time at which everything ends.
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
    """What one process of learners saw.

    Attributes:
        took: seconds of each page by kind.
        sent: whose answer it was, once for each question, however often the form was sent.
        answered: attempts the studio acknowledged, "name id" -> time.
        errors: what went wrong, and how often.
        cpu: processor seconds.
    """

    took: dict[str, list[float]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    answered: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0


def answer_form(page: str, program: str = "") -> dict[str, str]:
    """Return the fields that answer this page's question: a program, an option or, where none is shown, an output."""
    ticket, letter = TICKET.search(page), LETTER.search(page)
    if ticket and program:
        return {"ticket": ticket[1], "program": program}
    if ticket is None or not (letter or TYPED in page):
        return {}
    return {"ticket": ticket[1], **({"response": letter[1]} if letter else {"typed": "0.5"})}


class Response(NamedTuple):
    """What the studio answered; `location` is "" where it does not redirect."""

    status: int
    location: str
    text: str


class Browser:
    """Kept connections over HTTP/1.1 and cookies, and nothing else of a browser.

    A general client takes longer for a request than the studio does, on the cores that the studio is measured on.
    """

    def __init__(self, base: str) -> None:
        where = urlsplit(base)
        self._host, self._port = str(where.hostname), int(where.port or 80)
        self._cookies: dict[str, str] = {}
        self._idle: list[tuple[StreamReader, StreamWriter]] = []

    async def request(self, method: str, address: str, form: dict[str, str]) -> Response:
        """Raises OSError (TimeoutError too) or EOFError where no whole answer comes."""
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
        """Return a connection that nobody uses, or a new one."""
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
    """One account at a browser."""

    def __init__(self, plan: Plan, name: str, seen: Seen) -> None:
        self.plan, self.name, self.seen = plan, name, seen
        self.browser = Browser(plan.base)
        self.csrf = ""

    async def send(self, kind: str, method: str, address: str, **form: str) -> Response | None:
        """The response, timed; sent again while the studio is away. None when there is none."""
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
        """A question, thought about, answered, with a program or not; and what is said of it."""
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
    """A learner who answers, and now and then runs a program, until the end."""
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
    """A learner who sends the longest answers and endless programs, eight at a time."""
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
    """Read a plan from stdin, write what was seen to stdout."""
    given = json.load(sys.stdin)
    print(json.dumps(asdict(asyncio.run(_all(Plan(**given))))))


if __name__ == "__main__":
    main()
