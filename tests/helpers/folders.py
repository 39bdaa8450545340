"""Folders of pretrained modules: what is saved, read back and forged."""

import json

from symplectic_jepa import _folder


def call(module, x):
    output = module(x)
    return output[0] if isinstance(output, tuple) else output


def scramble(module):
    """Weights and buffers that no constructor makes."""
    state = {k: 1.01 * x if x.is_floating_point() else x for k, x in module.state_dict().items()}
    module.load_state_dict(state)
    return module


def weights(folder):
    (file,) = folder.glob("*.safetensors")
    return file


def settings(folder):
    return json.loads((folder / "config.json").read_text())


def forge(folder, config):
    """Settings that `save_pretrained` would not write, with a checksum that fits."""
    config["checksum"] = _folder._checksum(config)
    (folder / "config.json").write_text(json.dumps(config))
