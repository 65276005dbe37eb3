"""Local paths of a job are made absolute; names and URIs stay what they are."""

from pipeline.job import Devices, Job
from pipeline.places import with_absolute_paths


def test_paths_are_made_absolute_and_names_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder in ("tiny", "demo", "suno/bark", "home/model"):
        (tmp_path / folder).mkdir(parents=True)

    def made(**values) -> Job:
        return with_absolute_paths(Job(**{"input": ("a",), "output": "out"} | values))

    names = {"tiny": "/tiny", "./tiny/": "/tiny", "suno/bark": "/suno/bark", "~/model": "/home/model"}
    assert {name: made(checkpoint=name).checkpoint for name in names} == {
        name: f"{tmp_path}{path}" for name, path in names.items()
    }
    for name in ("demo", "suno/bark-small", "./none", "gs://b/c", "~nobody/x"):
        assert made(checkpoint=name).checkpoint == name
    voices = {"v.npz": f"{tmp_path}/v.npz", "file:///v.npz": "/v.npz"}
    for voice in ("v2/en_speaker_6", "../x", None, "gs://b/v.npz", "memory://v.npz"):
        voices[voice] = voice
    assert {voice: made(voice=voice).voice for voice in voices} == voices
    job = made(input=("in/*.txt", "gs://b/*"), devices=Devices(compilation_cache="cache"))
    assert job.input == (f"{tmp_path}/in/*.txt", "gs://b/*")
    assert (job.devices.compilation_cache, job.output) == (f"{tmp_path}/cache", "out")
