"""Files of weights as safetensors has them: tensors by name, and what they say of themselves."""

from pathlib import Path

from torch import Tensor

from cifar_lab.trained.description import KEY, Description

SUFFIX = ".safetensors"


def read(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    """A file's tensors by name, on the CPU, and its description; None where it is not one of ours.

    Raises:
        ValueError: safetensors is not installed, or the file is damaged; in one line that names it.
        OSError: It cannot be read.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ValueError(f"{path} needs safetensors: pip install 'cifar-lab[export]'") from None
    with path.open("rb"):  # what cannot be opened is not damaged
        pass
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, as it is no dict
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {' '.join(str(error).split())[:200]}") from None
    if text is None:
        return state, None
    try:
        return state, Description.from_text(text)
    except ValueError as error:
        raise ValueError(f"{path}: its metadata is damaged: {' '.join(str(error).split())[:200]}") from None
