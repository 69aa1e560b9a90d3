"""What a run begins with: a new network, weights from elsewhere, and which of them stay as they are."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.networks.adapter import Adapted, FixedAdapter, InvariantAdapter, build_adapter
from napari_nucleus_kd.networks.blocks import PlainEncoder
from napari_nucleus_kd.networks.student import Student, StudentConfig
from napari_nucleus_kd.package import load_model

if TYPE_CHECKING:
    from torch import nn

    from napari_nucleus_kd.train.settings import AdapterSettings, TrainSettings


def first_network(settings: TrainSettings) -> Student | Adapted:
    """Return the network of the settings as it is before the first step; float32, on the CPU.

    With an adapter it is that in front of the student.

    Raises
    ------
    SettingsError : the settings make no network.
    ModelError : the model to start from is another network, or that whose encoder to start from has another
        one, or its weights, or those of the encoder, cannot be read.
    """
    try:
        network = Student(settings.student)
    except (ValueError, RuntimeError) as error:
        raise SettingsError(f"student: these widths make no network: {error}") from error
    if settings.start is not None:
        model = load_model(settings.start)
        if not _same_network(model.spec.options, settings.student):
            raise ModelError(
                f"{settings.start}: is another network than 'student' of the settings; leave that out, or "
                f"set it to {json.dumps(model.spec.options)}"
            )
        network.load_state_dict(model.network().state_dict())
        network.requires_grad_(True)
    elif settings.encoder_of is not None:
        _take_encoder(network, settings.encoder_of)
    elif settings.pretrained and not isinstance(network.encoder, PlainEncoder):
        network.encoder.load_pretrained(settings.encoder_weights)
    if settings.frozen_encoder:
        pretrained_part(network).requires_grad_(False)
    if settings.adapter is None:
        return network
    return Adapted(_first_adapter(settings.adapter), network, frozen=settings.adapter.frozen_student)


def _first_adapter(settings: AdapterSettings) -> FixedAdapter | InvariantAdapter:
    adapter = build_adapter(settings.architecture, settings.options)
    if settings.start is not None:
        model = load_model(settings.start)
        if (model.spec.architecture, model.spec.options) != (settings.architecture, settings.options):
            raise ModelError(
                f"adapter.start: {settings.start} is {model.spec.architecture} {model.spec.options}, and the "
                f"settings say {settings.architecture} {settings.options}; give these, or another one"
            )
        adapter.load_state_dict(model.network().state_dict())
        adapter.requires_grad_(True)
    return adapter


def blended(network: Student, settings: TrainSettings) -> Student:
    """Return a network with the settings' share of a trained one's weights, the rest being those of start.

    It keeps most of what was learnt, and of what was known before (Wortsman et al., Robust fine-tuning of
    zero-shot models, CVPR 2022). Without a model to start from it is the trained network itself.
    """
    if settings.blend == 1:
        return network
    mixed, old = deepcopy(network), first_network(settings).state_dict()
    with torch.no_grad():
        for name, tensor in mixed.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(old[name].to(tensor), 1 - settings.blend)
    return mixed


def _take_encoder(network: Student, name: str) -> None:
    """Copy the encoder of a model; of a deeper one, the levels that the network has."""
    theirs = load_model(name).network().state_dict()
    wanted = {f"encoder.{key}": tensor for key, tensor in network.encoder.state_dict().items()}
    unlike = [key for key, tensor in wanted.items() if key not in theirs or theirs[key].shape != tensor.shape]
    if unlike:
        raise ModelError(
            f"encoder_of: {name} has another encoder than 'student' of the settings; {len(unlike)} of "
            f"{len(wanted)} tensors differ, the first is {unlike[0]}"
        )
    network.encoder.load_state_dict({key.removeprefix("encoder."): theirs[key] for key in wanted})


def pretrained_part(network: Student) -> nn.Module:
    """Return the part that has weights trained on other pictures; of a plain encoder, all of it."""
    encoder = network.encoder
    return encoder if isinstance(encoder, PlainEncoder) else encoder.pretrained_part


def frozen_tensors(network: Student | Adapted) -> set[str]:
    """Return the names of the tensors of the part that came with weights."""
    frozen = network.student if isinstance(network, Adapted) else pretrained_part(network)
    part = {id(tensor) for tensor in frozen.state_dict(keep_vars=True).values()}
    return {name for name, t in network.state_dict(keep_vars=True).items() if id(t) in part}


def _same_network(options: dict[str, Any], student: StudentConfig) -> bool:
    """Tell whether weights of a network with these options fit the student; dropout has none."""
    try:
        found = StudentConfig.model_validate(options)
    except ValidationError:
        return False
    return found == student.model_copy(update={"dropout": found.dropout})
