"""Parts and classes of the user: what cannot be written is asked for, what could not be read is not saved."""

import pytest
import torch
from torch import nn

import symplectic_jepa as sj
from tests.helpers.cases import D
from tests.helpers.folders import scramble
from tests.helpers.systems import Pendulum, Well


def test_what_cannot_be_written_is_asked_for(tmp_path):
    predictor = sj.HamiltonianPredictor(sj.PotentialHamiltonian(scramble(Well())))
    predictor.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"needs potential=…: this argument \(hamiltonian.potential\)"):
        sj.HamiltonianPredictor.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="does not need backbone"):
        sj.HamiltonianPredictor.from_pretrained(tmp_path, potential=Well(), backbone=None)
    z = torch.randn(3, 2 * D)
    for name in ("potential", "hamiltonian.potential"):
        loaded = sj.HamiltonianPredictor.from_pretrained(tmp_path, **{name: Well()})
        assert torch.equal(loaded(z), predictor(z))

    backbone = nn.Conv2d(3, 12, 4, 4)
    encoder = sj.PhaseSpaceTokenEncoder(backbone, in_channels=12, token_channels=4)
    encoder.double().save_pretrained(tmp_path)
    mine = nn.Conv2d(3, 12, 4, 4)
    held = list(mine.parameters())  # as an optimizer does
    loaded = sj.PhaseSpaceTokenEncoder.from_pretrained(tmp_path, backbone=mine)
    assert all(x is y for x, y in zip(held, loaded.backbone.parameters(), strict=True))
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(loaded(images), encoder.eval()(images))


def test_two_places_never_get_one_given_part(tmp_path):
    def regularizer(scale):
        return lambda x: scale * x.square().mean()

    def objective(*regularizers):
        names = zip("ab", regularizers, strict=True)
        return sj.LeJEPAObjective({k: sj.Penalty(x) for k, x in names})

    states = torch.randn(2, 5, 4)
    two = objective(regularizer(1), regularizer(2))
    two.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"needed at penalties\.a\.regularizer and at penalties\.b\.regularizer"):
        sj.LeJEPAObjective.from_pretrained(tmp_path, regularizer=regularizer(1))
    places = {"penalties.a.regularizer": regularizer(1), "penalties.b.regularizer": regularizer(2)}
    assert torch.equal(sj.LeJEPAObjective.from_pretrained(tmp_path, **places)(states)[0], two(states)[0])
    one = regularizer(3)
    objective(one, one).save_pretrained(tmp_path)  # one part at two places is asked for once
    loaded = sj.LeJEPAObjective.from_pretrained(tmp_path, regularizer=one)
    assert loaded.penalties["a"].regularizer is loaded.penalties["b"].regularizer is one


class LongPendulum(Pendulum):
    def __init__(self, length):
        super().__init__()
        self.length = length


class _Private(LongPendulum):
    pass


class Configured(LongPendulum):
    def __init__(self, length):
        super().__init__(length)
        self.config = {"a habit": "of many code bases"}


class Argument(Pendulum):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset
        self.argument = nn.Linear(2, 2)


class Open(Pendulum):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def config(self):
        return self.options


@pytest.mark.parametrize(
    "module", [Pendulum(), LongPendulum(2.5), _Private(2.5), Configured(2.5), Open(length=1, options=[1, (2, None)])]
)
def test_a_users_subclass(module, tmp_path):
    module.save_pretrained(tmp_path)
    loaded = type(module).from_pretrained(tmp_path)
    assert vars(loaded).get("length") == vars(module).get("length")
    assert vars(loaded).get("options") == vars(module).get("options")
    with pytest.raises(ValueError, match=f"'{type(module).__name__}', which is not a module of symplectic_jepa"):
        sj.hamiltonians.Hamiltonian.from_pretrained(tmp_path)


def test_a_part_called_argument_and_a_tensor_outside_of_the_state(tmp_path):
    module = Argument(torch.tensor([1.0, 2.0]))
    module.save_pretrained(tmp_path)
    loaded = Argument.from_pretrained(tmp_path)
    assert torch.equal(loaded.offset, module.offset)
    assert torch.equal(loaded.argument.weight, module.argument.weight)


class Forgetful(Pendulum):
    def __init__(self, length):
        super().__init__()


class Keywords(Pendulum):
    def __init__(self, **options):
        super().__init__()


class OtherWell(sj.PotentialHamiltonian):
    def __init__(self):
        super().__init__(Well())


class Numbered(Pendulum):
    def __init__(self):
        super().__init__()

    def get_extra_state(self):
        return {"not": "a tensor"}


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Forgetful(1.0), "Forgetful must keep 'length' as an attribute, or override config"),
        (Keywords(a=1), r"Keywords must override config\(\): its constructor takes \*\*options"),
        (OtherWell(), "settings of OtherWell must be its constructor's arguments: .*'potential'"),
        (Numbered(), "must hold tensors to be saved, got dict at _extra_state"),
        (Open(options={1: 2}), r"options must have strings as keys to be saved, got \[1\]"),
        (type("SIGReg", (sj.SIGReg,), {})(), "SIGReg must have another name to be saved"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(module, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        module.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert type(module).__name__ in repr(module)
