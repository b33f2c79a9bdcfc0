"""What an exported file says of itself: enough to make its network again, and what is known of it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from cifar_lab.runs import check_kinds, from_json
from cifar_lab.runs.reading import RESULT_KINDS

KEY = "cifar_lab"  # of the description in a file's metadata
SCHEMA_VERSION = 1

_KINDS = {"model": dict, "architecture": str, "mean": list, "std": list, "classes": list, "names": list, "facts": dict}


@dataclass(frozen=True)
class Description:
    """A trained network without its weights, in plain values.

    Attributes:
        model: The option that makes the network, with `_target_`.
        architecture: The same in a few words.
        mean: Per channel, subtracted from images from 0 to 1.
        std: Per channel, divided by.
        classes: Their names, in the order of the logits.
        names: Of the weights, in the network's order, which safetensors does not keep.
        facts: What is known of it, by the names of `docs/run_directory.md`.
    """

    model: Mapping[str, Any]
    architecture: str
    mean: Sequence[float]
    std: Sequence[float]
    classes: Sequence[str]
    names: Sequence[str]
    facts: Mapping[str, Any]

    def text(self, **more: Any) -> str:
        """As JSON, with further plain values."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self), **more})

    @classmethod
    def from_text(cls, text: str) -> "Description":
        """Read what `text` has written, without the further values.

        Raises:
            ValueError: It is damaged, or made up by somebody.
        """
        values = from_json(text)
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        missing = [name for name in _KINDS if name not in values]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        check_kinds(values, _KINDS)
        check_kinds(values["facts"], RESULT_KINDS)
        for name in ("mean", "std"):
            channels = values[name]
            if len(channels) != 3 or not all(type(one) in (int, float) and math.isfinite(one) for one in channels):
                raise ValueError(f"{name} is not three numbers")
        if min(values["std"]) <= 0:
            raise ValueError("a std lies not above 0")
        words = [values["architecture"], *values["classes"], *values["names"]]
        if not all(isinstance(word, str) and word.isprintable() for word in words):
            raise ValueError("its names are no plain words")
        if not isinstance(values["model"].get("_target_"), str) or "${" in str(values["model"]):
            raise ValueError("its model names no class, or holds an interpolation, ${...}, in place of a value")
        return cls(**{field.name: values[field.name] for field in fields(cls)})
