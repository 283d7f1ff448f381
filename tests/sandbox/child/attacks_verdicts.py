"""Attacks on the verdict: wrong programs that speak the protocol by hand, or reach for the tests. None may pass.

Each reply is what a program answers to everything it is asked; `double` is never right for both tests.
"""

HAND = """
import json, os, struct
def exactly(n):
    data = b''
    while len(data) < n: data += os.read(5, n - len(data))
    return data
def say(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    os.write(5, struct.pack('<I', len(data)) + data)
def hear(): return json.loads(exactly(struct.unpack('<I', exactly(4))[0]))
say({{'raised': None}})
while True:
    hear()
    say({reply})
"""
REPLIES = {
    "a verdict": "{'tests': [['doubles a number', True, '', None]], 'raised': None}",
    "verdicts of each": "{'each': [{'tests': [['doubles a number', True, '', None]], 'raised': None}]}",
    "the next program, please": "{'op': 'next'}",
    "a question": "{'op': 'get', 'handle': 0, 'name': 'double'}",
    "nothing": "{}",
    "the value nothing": "{'value': None}",
    "true": "{'value': True}",
    "always 42": "{'value': 42}",
    "always a TypeError": "{'raised': {'type': 'TypeError', 'message': 'number', 'kinds': ['TypeError']}}",
    "a TypeError of two kinds": "{'raised': {'type': 'x', 'message': 'number', 'kinds': ['SystemExit', 'TypeError']}}",
    "an exception that leaves": "{'raised': {'type': 'SystemExit', 'message': '0', 'kinds': ['SystemExit']}}",
    "an exception that ends a generator": "{'raised': {'type': 'x', 'message': '', 'kinds': ['StopIteration']}}",
    "an exception that is a warning": "{'raised': {'type': 'x', 'message': '', 'kinds': ['DeprecationWarning']}}",
    "an exception that is a group": "{'raised': {'type': 'x', 'message': 'number', 'kinds': ['ExceptionGroup']}}",
    "an exception that is a call": "{'raised': {'type': 'x', 'message': 'number', 'kinds': ['__import__', 'exit']}}",
    "an exception without kinds": "{'raised': {'type': 'TypeError', 'message': 'number'}}",
    "an exception that is a number": "{'raised': 7}",
    "kinds that are an object": "{'raised': {'type': 'x', 'message': 'number', 'kinds': {'TypeError': 1}}}",
    "a handle to itself": "{'value': {'handle': 0, 'type': 'program'}}",
    "a handle that is no number": "{'value': {'handle': None, 'type': 'number'}}",
    "a handle that is infinite": "{'value': {'handle': float('inf'), 'type': 'x'}}",
    "a handle that is code": "{'value': {'handle': '__import__(\"os\")._exit(0)', 'type': 'x'}}",
    "a huge number": "b'{\"value\": ' + b'9' * 50000 + b'}'",
    "NaN": "b'{\"value\": NaN}'",
    "a number as text": "{'value': {'i': 'x' * 9999}}",
    "a float as text": "{'value': {'f': 'nan'}}",
    "half a surrogate": "b'{\"value\": \"\\\\ud800\"}'",
    "brackets": "b'[' * 200000",
    "deep lists": "b'{\"value\": ' + b'{\"l\": [' * 5000 + b']}' * 5000 + b'}'",
    "a list as a key": "{'value': {'d': [[{'l': []}, 1]]}}",
    "a dtype that is a function": "{'value': {'dtype': 'load'}}",
    "a tensor of nothing": "{'value': {'tensor': '', 'dtype': 'float32', 'shape': [0, 2**62, 2**62]}}",
    "a pickle": "b'cposix\\nsystem\\n(Vtrue\\ntR.'",
    "no JSON": "b'\\xff\\xfe'",
    "a message of no length": "b''",
}  # fmt: skip
PROGRAMS = {
    "answer before it is asked": HAND.replace("while True:", "for _ in range(50): say({{'value': 42}})\nwhile True:"),
    "say a size and end": HAND.replace("while True:", "os.write(5, struct.pack('<I', 50)); os._exit(0)\nwhile True:"),
    "say a size of 4 GiB": HAND.replace("while True:", "os.write(5, b'\\xff' * 4)\nwhile True:"),
    "say half and sleep": HAND.replace("while True:", "import time\nos.write(5, b'\\x50'); time.sleep(60)\nwhile True:"),
    "never say that it is loaded": HAND.replace("say({{'raised': None}})", "import time; time.sleep(60)"),
    "say that it is loaded twice": HAND.replace("say({{'raised': None}})", "say({{'raised': None}}); say({{'raised': None}})"),
    "stop itself": "import os, signal\ndef double(x): os.kill(os.getpid(), signal.SIGSTOP)",
    "send the tests signals": (
        "import fcntl, os\ndef double(x):\n    try: fcntl.fcntl(5, 8, -os.getpgrp()); fcntl.fcntl(5, 10, 9)\n"
        "    except OSError: pass\n    return 0"
    ),
    "close the channel and go on": "import os\ndef double(x): os.close(5); return 42",
    "hold the channel when it ends": "import os\nfor _ in range(20): os.dup(5)\nos._exit(0)",
    "flood the channel": "import os\nwhile True: os.write(5, b'{{}}' * 10000)",
    "report tests of its own": (
        "import os\nos.write(4, b'{{\"tests\": [[\"doubles a number\", true, \"\", null]], \"raised\": null}}')\n"
        "def double(x): return 0"
    ),
    "take the place of its own process": (
        "import sys\nfor name in ('wire', 'judging', 'running', 'reports'):\n"
        "    module = sys.modules.get(f'clearhead.sandbox.{{name}}')\n"
        "    for key in vars(module or sys).copy():\n"
        "        if callable(getattr(module, key, None)) and not key.startswith('__'): setattr(module, key, lambda *a, **k: True)"
    ),
    "an answer that is equal to everything": (
        "class Sly(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def double(x): return Sly(7)"
    ),
    "text that is equal to everything": (
        "class Sly(str):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef double(x): return Sly('7')"
    ),
    "find the tests' folder": (
        "import glob, os\nfound = glob.glob('../*/*') + glob.glob('/tmp/*')\ndef double(x): return 42 if found else 0"
    ),
    "an exception that lies of its kind": (
        "class TypeError(Exception):\n    __class__ = AssertionError\n    def __str__(self): return 'number'\n"
        "def double(x): raise TypeError"
    ),
    "a module that lies": "import sys\nsys.modules['__main__'].__getattr__ = lambda name: 42",
    "leave by a thread": (
        "import os, threading, time\ndef double(x):\n    threading.Thread(target=lambda: os._exit(0)).start()\n    time.sleep(60)"
    ),
}  # fmt: skip
FORGERIES = {
    **{f"reply with {name}": HAND.format(reply=reply) for name, reply in REPLIES.items()},
    **{name: source.format(reply="{'value': 42}") for name, source in PROGRAMS.items()},
}
