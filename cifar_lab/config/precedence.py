"""Hydra's composition, with one rule more: replacing an option drops what an experiment set inside it.

`experiment=loss_focal loss=ce` would else keep focal's gamma, and `optimizer=sgd` Adam's learning rate. It stands on
two methods of Hydra's own loader (1.3); `tests/config/test_precedence.py` fails where they have changed.
"""

import copy
from typing import Any

import hydra._internal.hydra as hydra_internals
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import GroupDefault
from omegaconf import DictConfig, open_dict

_FOLDERS = ("experiment/", "study/")


class Loader(ConfigLoaderImpl):
    """Composes configurations.

    Attributes:
        choices: The chosen option of each group, of the last composition.
        dropped: What the last composition dropped, as `loss.gamma`.
        before_values: The last composition without experiments and typed values: the options' own keys and kinds.
    """

    choices: dict[str, str]
    dropped: list[str]
    before_values: DictConfig = DictConfig({})

    def list_groups(self, parent_name: str) -> list[str]:
        """Groups whose options may be chosen; what options of a group have in common, `base`, is no choice."""
        return [group for group in super().list_groups(parent_name) if group != "base"]

    def _compose_config_from_defaults_list(self, defaults: list[Any], repo: Any) -> DictConfig:
        paths = [default.config_path for default in defaults if default.config_path and "/" in default.config_path]
        self.choices = dict(path.rsplit("/", 1) for path in paths)
        self.dropped = []
        options = [default for default in defaults if not str(default.config_path).startswith(_FOLDERS)]
        self.before_values = super()._compose_config_from_defaults_list(options, repo)
        return super()._compose_config_from_defaults_list(defaults, repo)

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        result = super()._load_single_config(default, repo)
        if not default.config_path.startswith(_FOLDERS):
            return result
        result = copy.copy(result)
        result.config = config = copy.deepcopy(result.config)
        assert isinstance(config, DictConfig)
        for named in result.defaults_list or []:
            if isinstance(named, GroupDefault) and named.override:
                self._drop_unless_chosen(config, str(named.group).lstrip("/"), str(named.value))
        return result

    def _drop_unless_chosen(self, config: DictConfig, group: str, option: str) -> None:
        if self.choices.get(group) != option and group in config:
            with open_dict(config):
                self.dropped += [f"{group}.{key}" for key in config.pop(group)]


def install() -> None:
    """Make Hydra use our loader, for its command line and its compose API."""
    hydra_internals.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]
