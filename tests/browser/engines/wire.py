"""What Firefox and WebKit have in common: the key codes and pointer actions of the WebDriver protocols."""

from typing import Any

CODES = {
    "Enter": "\ue007",
    "Escape": "\ue00c",
    "Tab": "\ue004",
    "Backspace": "\ue003",
    "Control": "\ue009",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
}


def pressed(text: str) -> list[dict[str, Any]]:
    """Key actions that type this text, or press one key by its name ("Enter", "Control+Enter")."""
    *held, last = text.split("+") if text.startswith("Control+") else [text]
    strokes = [CODES[last]] if last in CODES else list(last)
    down = [{"type": "keyDown", "value": CODES[key]} for key in held]
    up = [{"type": "keyUp", "value": CODES[key]} for key in held]
    typed = [
        {"type": kind, "value": "\ue007" if key == "\n" else key} for key in strokes for kind in ("keyDown", "keyUp")
    ]
    return [*down, *typed, *up]


def pointed(path: tuple[tuple[float, float], ...]) -> list[dict[str, Any]]:
    """Pointer actions that press at the first place, move over the others and release at the last."""

    def move(place: tuple[float, float]) -> dict[str, Any]:
        return {"type": "pointerMove", "x": round(place[0]), "y": round(place[1]), "duration": 20, "origin": "viewport"}

    down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
    return [move(path[0]), down, *map(move, path[1:]), up]
