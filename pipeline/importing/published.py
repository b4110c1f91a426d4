"""Networks in the layouts of transformers, segmentation_models_pytorch and torchvision; never a pickle, never a hub."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from model.files.metadata import truncate_text
from pipeline.errors import ConfigError
from pipeline.importing.source import Selected, Source, Stated, is_placeholder

__all__ = ["from_huggingface", "from_segmentation_models", "from_torchvision"]

# torchvision's segmentation networks were trained on pixels of 0–1 with these statistics of ImageNet.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_LAST_LAYERS = ("classifier.4", "classifier.low_classifier")
_VOC_CLASSES = 21


def from_huggingface(folder: Path, origin: str) -> Source:
    """Read a network in the layout of transformers.

    Args:
        folder: Local folder with config.json, model.safetensors and, where there is one, preprocessor_config.json.
        origin: URI of the folder, for messages and the record.

    Raises:
        ConfigError: If transformers is not installed, or does not read a network for semantic segmentation there.
    """
    try:
        from transformers import AutoModelForSemanticSegmentation, logging
    except ImportError as error:
        raise ConfigError("networks of transformers need it here: pip install 'dilated-context[import]'") from error
    config = _json(folder / "config.json", origin)
    logging.set_verbosity_error()
    try:
        network = AutoModelForSemanticSegmentation.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises many kinds
        raise ConfigError(
            f"transformers cannot read a network for semantic segmentation from {origin} ({truncate_text(error)}): "
            "networks of instances, such as Mask2Former, have no map of scores"
        ) from error
    names = config.get("id2label") or {}
    classes = tuple(str(names[key]) for key in sorted(names, key=int)) or None
    processor = folder / "preprocessor_config.json"
    stated = _processor(_json(processor, origin)) if processor.exists() else {}
    if classes is not None and not is_placeholder(classes):
        stated["classes"] = classes
    ignore = config.get("semantic_loss_ignore_index")
    if isinstance(ignore, int) and 0 <= ignore <= 255:
        stated["ignore_label"] = ignore
    record = {"layout": "transformers", "uri": origin, "architecture": type(network).__name__}
    return Source(Selected(network.eval(), "logits"), Stated(**stated), upsampled=True, record=record)


def _processor(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statements of an image processor's settings."""
    found: dict[str, Any] = {"channels": "RGB", "scale": 1.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if settings.get("do_rescale", True):
        found["scale"] = float(settings.get("rescale_factor", 1 / 255))
    if settings.get("do_normalize", True):
        if "image_mean" not in settings or "image_std" not in settings:
            return {}
        found["mean"] = tuple(float(value) for value in settings["image_mean"])
        found["std"] = tuple(float(value) for value in settings["image_std"])
    if settings.get("do_flip_channel_order"):
        found["channels"] = "BGR"
    size = settings.get("size")
    if settings.get("do_resize", True) and size is not None:
        if isinstance(size, int):
            found["resize"] = {"short_side": size}
        elif "shortest_edge" in size:
            found["resize"] = {"short_side": int(size["shortest_edge"])}
        else:
            found["resize"] = {"size": (int(size["height"]), int(size["width"]))}
    return found


def from_segmentation_models(folder: Path, origin: str) -> Source:
    """Read a network in the layout of segmentation_models_pytorch.

    Args:
        folder: Local folder with config.json and model.safetensors.
        origin: URI of the folder, for messages and the record.

    Raises:
        ConfigError: If segmentation_models_pytorch is not installed, or does not read a network there.
    """
    try:
        import segmentation_models_pytorch as smp  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConfigError(
            "networks of segmentation_models_pytorch need it here: pip install 'dilated-context[import]'"
        ) from error
    config = _json(folder / "config.json", origin)
    weights = config.get("encoder_weights")
    name = config.get("encoder_name")
    try:
        kind = smp.MODEL_ARCHITECTURES_MAPPING[str(config["_model_class"]).lower()]
        parameters = inspect.signature(kind).parameters
        settings = {key: value for key, value in config.items() if not key.startswith("_") and key in parameters}
        # Not from_pretrained: it would fetch the encoder's weights first, which the file replaces anyway.
        network = kind(**{**settings, "encoder_weights": None})
        network.load_state_dict(_tensors(folder / "model.safetensors", origin))
        stated: dict[str, Any] = {"multiple_of": int(network.encoder.output_stride)}
        if weights is not None:
            known = smp.encoders.get_preprocessing_params(name, weights)
            scale = 1.0 if known.get("input_range", [0, 1])[1] == 255 else 1 / 255
            stated |= {"channels": known.get("input_space", "RGB"), "scale": scale}
            stated |= {"mean": tuple(known["mean"]), "std": tuple(known["std"])}
    except ConfigError:
        raise
    except Exception as error:  # the package raises many kinds
        raise ConfigError(f"segmentation_models_pytorch cannot read {origin}: {truncate_text(error)}") from error
    record = {"layout": "segmentation_models_pytorch", "uri": origin, "architecture": type(network).__name__}
    return Source(Selected(network.eval(), None), Stated(**stated), record={**record, "encoder": name})


def from_torchvision(name: str, weights: bytes, origin: str) -> Source:
    """Build a segmentation network of torchvision, and load weights into it.

    Args:
        name: Name of the network, such as `lraspp_mobilenet_v3_large`.
        weights: Content of a safetensors file, or of a state dict that torch loads without unpickling code.
        origin: URI of the weights, for messages and the record.

    Raises:
        ConfigError: If the network is unknown, or the weights are not its own.
    """
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise ConfigError(f"torchvision has no segmentation network {name!r}: choose from {', '.join(known)}")
    state = {key: tensor for key, tensor in _state(weights, origin).items() if not key.startswith("aux_classifier.")}
    last = next((key for key in _LAST_LAYERS if f"{key}.weight" in state), None)
    if last is None:
        raise ConfigError(f"{origin} holds no weights of {name}: it has no layer {' or '.join(_LAST_LAYERS)}")
    count = int(state[f"{last}.weight"].shape[0])
    network = models.get_model(name, weights=None, weights_backbone=None, num_classes=count)
    network.aux_classifier = None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"the weights {origin} do not fit {name}: {truncate_text(error)}") from error
    classes = None
    if count == _VOC_CLASSES:
        classes = tuple(models.get_model_weights(name).DEFAULT.meta["categories"])  # type: ignore[attr-defined]
    stated = Stated(classes=classes, channels="RGB", scale=1 / 255, mean=_MEAN, std=_STD)
    record = {"layout": "torchvision", "uri": origin, "architecture": name}
    return Source(Selected(network.eval(), "out"), stated, record=record)


def _state(data: bytes, origin: str) -> dict[str, torch.Tensor]:
    """Return tensors by name from a safetensors file or a state dict."""
    try:
        return load(data)
    except (SafetensorError, ValueError):
        pass
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds
        raise ConfigError(
            f"{origin} is neither a safetensors file nor a plain state dict: {truncate_text(error)}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ConfigError(f"{origin} holds no state dict: write the network's state_dict() with safetensors")
    return state


def _tensors(path: Path, origin: str) -> dict[str, torch.Tensor]:
    try:
        return load(path.read_bytes())
    except (SafetensorError, ValueError) as error:
        raise ConfigError(f"model.safetensors of {origin} cannot be read: {truncate_text(error)}") from error


def _json(path: Path, origin: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path.name} of {origin} is not JSON: {truncate_text(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} of {origin} is no JSON object")
    return content
