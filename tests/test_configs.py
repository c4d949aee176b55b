"""The configs that come with the project, as their comments say they are used."""

from pathlib import Path

import pytest
from conftest import ROOT

from flowgraph.config.load import load
from flowgraph.config.mistake import ConfigError

CONFIGS = ROOT / "configs"
MAIN = CONFIGS / "main.yaml"


def blocks(spec):
    return {block.name: block for block in spec.blocks}


@pytest.mark.parametrize("job", ["main.yaml", "paper/text_and_latent.yaml", "paper/text_only.yaml"])
def test_one_worker_lies_over_any_job(job):
    spec = load(CONFIGS / job, overlays=[CONFIGS / "overlays/one_worker.yaml"])
    assert [worker.name for worker in spec.workers] == ["main"]
    assert {block.worker for block in spec.blocks} == {"main"}


def test_two_hosts_find_their_keys_at_home_whatever_the_addresses(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    addresses = {"here": "192.168.1.6", "there": "192.168.1.7"}
    spec = load(MAIN, overlays=[CONFIGS / "overlays/two_hosts.yaml"], set=addresses)
    assert {worker.name: worker.host for worker in spec.workers} == {"tx": "192.168.1.7", "air": None, "rx": None}
    assert (spec.network.listen, spec.network.keys) == ("tcp://192.168.1.6:5555", str(Path(tmp_path, ".semflow")))


def test_unequal_protection_lies_over_the_main_job():
    overlay = CONFIGS / "overlays/unequal.yaml"
    parts = blocks(load(MAIN, overlays=[overlay], set={"ebn0": "3 dB"}))
    assert (parts["pack"].params["latent"], parts["pack"].params["layout"]) == ("quant5", "planes")
    sent, received = parts["link.modulate"].params["profile"], parts["link.demodulate"].params["profile"]
    assert sent == received
    assert {"header", "caption", "plane1"} < {*sent}
    assert parts["link.air"].params["ebn0"] == "3 dB"
    finer = blocks(load(MAIN, overlays=[overlay], set={"latent": "quant8"}))
    assert finer["pack"].params["latent"] == "quant8"
    with pytest.raises(ConfigError, match="must have a quantiser as latent with layout: planes, not float64"):
        load(MAIN, overlays=[overlay], set={"latent": "float64"})


def test_another_model_is_one_variable_for_all_who_must_agree_on_it():
    model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    parts = blocks(load(MAIN, set={"model": model}))
    assert parts["caption"].params["tokenizer"] == model
    assert parts["encode"].params["model"] == parts["render"].params["model"] == model
    assert not any("size" in parts[name].params for name in ("caption", "encode", "render"))
