"""Compiled programs outlive the process: a second start compiles nothing and gives the same bits."""

import json
import os
import subprocess
import sys

CODE = """
import hashlib, json, sys
import jax
from bark_model import Bark, Request, Sampling
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
bark = Bark.load(sys.argv[1], slots=2, compilation_cache=sys.argv[2])
[result] = bark.synthesize([Request(id="a", text="Hello there", sampling=Sampling.greedy())])
count = lambda name: sum(event.endswith(name) for event in events)
digest = hashlib.sha256(result.audio.tobytes()).hexdigest()
print(json.dumps({"compiled": count("/cache_misses"), "found": count("/cache_hits"), "audio": digest}))
"""


def test_a_second_start_compiles_nothing(folders, tmp_path):
    def start() -> dict:
        command = [sys.executable, "-c", CODE, str(folders["tiny"].folder), str(tmp_path / "compiled")]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first, second = start(), start()
    assert first["compiled"] > 5
    assert second["compiled"] == 0
    assert second["found"] == first["compiled"]
    assert second["audio"] == first["audio"]
