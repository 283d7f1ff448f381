"""Attacks on the verdict: wrong programs that speak the protocol by hand, or reach for the tests. None may pass.

Each reply is what a program answers to everything it is asked, or to each call; `double` is never right for both
tests.
"""

HAND = """
import json, os, struct
def exactly(n):
    data = b''
    while len(data) < n:
        part = os.read(5, n - len(data))
        if not part:  # the tests have ended: so does an honest program
            os.write(4, b'{{"raised": null, "values": {{}}}}')
            os._exit(0)
        data += part
    return data
def say(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    os.write(5, struct.pack('<I', len(data)) + data)
def hear(): return json.loads(exactly(struct.unpack('<I', exactly(4))[0]))
NAMED = {{'value': {{'handle': 0, 'type': 'double'}}}}
say({{'raised': None}})
while True:
    asked = hear()
    say({reply})
"""
CALLS = "({reply}) if asked['op'] == 'call' else NAMED"
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
        "import sys\nours = [module for name, module in sys.modules.items() if name.startswith('clearhead.sandbox.child.')]\n"
        "assert len(ours) > 3\nfor module in ours:\n    for key in vars(module).copy():\n"
        "        if callable(getattr(module, key)) and not key.startswith('__'): setattr(module, key, lambda *a, **k: True)"
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
    "report as it exits": (
        "import atexit, os, sys\nreport = b'{{\"tests\": [[\"doubles a number\", true, \"\", null]], \"raised\": null}}'\n"
        "atexit.register(os.write, 4, report)\nsys.exitfunc = sys.excepthook = lambda *a: os.write(4, report)\n"
        "def double(x): sys.exit(0)"
    ),
    "answer from a thread": (
        "import json, os, struct, threading, time\n"
        "def say():\n    data = json.dumps({{'value': 42}}).encode()\n"
        "    while True: os.write(5, struct.pack('<I', len(data)) + data); time.sleep(0.001)\n"
        "def double(x):\n    threading.Thread(target=say, daemon=True).start()\n    time.sleep(0.1)\n    return 0"
    ),
    "look through the frames that called it": (
        "import sys\ndef double(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in frame.f_locals.items():\n"
        "            if 'test' in name or '42' in repr(value): return 42\n        frame = frame.f_back\n    return 0"
    ),
    "trace what runs it": (
        "import sys, threading\ndef trace(frame, event, arg):\n    frame.f_globals['encode'] = lambda *a: 42\n    return trace\n"
        "sys.settrace(trace); sys.setprofile(trace); threading.settrace(trace)\ndef double(x): return 0"
    ),
    "change how values are sent": (
        "import json, sys\nwire = sys.modules['clearhead.sandbox.child.wire']\n"
        "wire.encode = lambda *a, **k: {{'value': True, 'tests': [['doubles a number', True, '', None]]}}\n"
        "json.dumps = lambda *a, **k: '{{\"value\": {{\"i\": \"42\"}}}}'\ndef double(x): return 0"
    ),
    "change what Python's own functions do": (
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.getattr = lambda *a: 42\n"
        "builtins.AssertionError = builtins.BaseException = KeyError\ndef double(x): return 0"
    ),
    "search all memory for the tests": (
        "import gc\ndef double(x):\n    word = 'double(' + '21)'\n"
        "    return 42 if any(word in o for o in gc.get_objects() if type(o) is str) or any(\n"
        "        word in str(v) for o in gc.get_objects() if type(o) is dict for v in list(o.values()) if type(v) is str\n"
        "        and v != word) else 0"
    ),
    "a number that unpickles to another": (
        "class Sly:\n    def __reduce__(self): return (eval, ('42',))\n    def __reduce_ex__(self, n): return (eval, ('42',))\n"
        "def double(x): return Sly()"
    ),
    "a float that says what it is asked": (
        "class Sly(float):\n    def __eq__(self, o): return True\n    __hash__ = None\n    def __float__(self): return 42.0\n"
        "    def __repr__(self): return '42'\n    __str__ = __format__ = __repr__\ndef double(x): return Sly(7)"
    ),
    "a list that is never as long": (
        "class Sly(list):\n    def __eq__(self, o): return True\n    def __iter__(self):\n        while True: yield 42\n"
        "def double(x): return Sly([42])"
    ),
    "the class of what it gives changes": (
        "class Sly:\n    __class__ = int\n    def __int__(self): return 42\n    __index__ = __abs__ = __int__\n"
        "    def __gt__(self, o): return False\n    def __lt__(self, o): return False\ndef double(x): return Sly()"
    ),
    "end the loops of the tests": "def double(x): raise StopIteration",
    "a promise": "async def double(x): return 42",
    "a generator": "def double(x): yield 42",
    "catch a signal and answer": (
        "import json, os, signal, struct\ndef answer(*a):\n    data = b'{{\"value\": 42}}'\n"
        "    os.write(5, struct.pack('<I', len(data)) + data)\nsignal.signal(signal.SIGUSR1, answer)\n"
        "def double(x): os.kill(os.getpid(), signal.SIGUSR1); return 0"
    ),
}  # fmt: skip
FORGERIES = {
    **{f"reply with {name}": HAND.format(reply=reply) for name, reply in REPLIES.items()},
    **{f"answer calls with {name}": HAND.format(reply=CALLS.format(reply=reply)) for name, reply in REPLIES.items()},
    **{name: source.format(reply="{'value': 42}") for name, source in PROGRAMS.items()},
}
