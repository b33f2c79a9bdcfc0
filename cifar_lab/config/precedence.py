"""Hydra's composition with two additional rules.

First, replacing an option drops the settings that an experiment or a study makes for it. Otherwise
`experiment=loss_focal loss=ce` would keep the gamma of focal loss, and `optimizer=sgd` the learning rate of Adam.
Second, the `axes` of studies and searches are not settings of a run. The rules rely on two methods of Hydra's loader
(1.3); `tests/config/test_precedence.py` fails if they change.
"""

import copy
import warnings
from typing import Any

import hydra._internal.hydra as hydra_internals
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import GroupDefault
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf, open_dict

_FOLDERS = ("experiment/", "study/", "search/")


class Loader(ConfigLoaderImpl):
    """Composes configurations, and records details of the last one."""

    choices: dict[str, str]  # the chosen option of each group
    dropped: dict[str, str]  # dropped keys, such as `loss.gamma`, and their origin: `experiment`, `study` or `search`
    study_options: dict[str, str]  # the options that its study chooses, by group
    named: dict[str, str]  # each group's option without the command line: the experiment's or the default
    untyped: Any  # the plain values without typed ones, with unresolved interpolations
    axes: Any  # the axes of its study, as in the file; empty without a study
    space: Any  # the axes of its search, likewise
    _named: dict[str, str]
    _before_values: DictConfig | None = DictConfig({})
    _options: tuple[list[Any], Any]  # the arguments of `before_values`, which composes at its first use

    @property
    def before_values(self) -> DictConfig:
        """The last composition without experiments, studies and typed values: the options' own keys and types."""
        if self._before_values is None:
            self._before_values = super()._compose_config_from_defaults_list(*self._options)
        return self._before_values

    def list_groups(self, parent_name: str) -> list[str]:
        """List the groups with options to choose; excludes `base`, the common part of a group's options."""
        return [group for group in super().list_groups(parent_name) if group != "base"]

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Return a group's options; avoids Hydra's copy of the search path at each call if nothing is added to it."""
        if config_name is None and not overrides:
            return self.repository.get_group_options(group_name, results_filter)
        return super().get_group_options(group_name, results_filter, config_name, overrides)

    def _compose_config_from_defaults_list(self, defaults: list[Any], repo: Any) -> DictConfig:
        paths = [default.config_path for default in defaults if default.config_path and "/" in default.config_path]
        self.choices = dict(path.rsplit("/", 1) for path in paths)
        self.dropped, self.axes, self.space, self.study_options, self._named = {}, {}, {}, {}, {}
        options = [default for default in defaults if not str(default.config_path).startswith(_FOLDERS)]
        composed = super()._compose_config_from_defaults_list(defaults, repo)
        self.named = self._named.copy()  # a copy: composing `before_values` overwrites it
        own = copy.deepcopy(composed)  # Hydra writes the typed values into the returned one
        self.untyped = OmegaConf.to_container(own, resolve=False)
        if len(options) == len(defaults):
            self._before_values = own
        else:
            self._before_values, self._options = None, (options, repo)
            composed = copy.deepcopy(composed)  # composing again would write into it
        return composed

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        with warnings.catch_warnings():
            # Our option for a plugin's launcher has the plugin's name, so that the plugin's schema sets its types.
            warnings.filterwarnings(
                "ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema"
            )
            result = super()._load_single_config(default, repo)
        named_options = [named for named in result.defaults_list or [] if isinstance(named, GroupDefault)]
        self._named |= {str(named.group).lstrip("/"): str(named.value) for named in named_options}
        if not default.config_path.startswith(_FOLDERS):
            return result
        result = copy.copy(result)
        result.config = config = copy.deepcopy(result.config)
        assert isinstance(config, DictConfig)
        kind = default.config_path.partition("/")[0]
        for named in named_options:
            if named.override:
                group, option = str(named.group).lstrip("/"), str(named.value)
                if kind == "study":
                    self.study_options[group] = option
                if self.choices.get(group) != option and group in config:
                    with open_dict(config):
                        self.dropped |= {f"{group}.{key}": kind for key in config.pop(group)}
        if kind == "study":
            self.axes = self._with_axes(config, self.axes)
        elif kind == "search":
            self.space = self._with_axes(config, self.space)
        return result

    def _with_axes(self, config: DictConfig, others: Any) -> Any:
        with open_dict(config):
            axes: Any = config.pop("axes", {})
        if OmegaConf.is_config(axes):
            axes = OmegaConf.to_container(axes)
        # A file may build on another one; their axes are merged.
        both = isinstance(axes, dict) and isinstance(others, dict)
        return {**others, **axes} if both else axes


def install() -> None:
    """Make Hydra's command line and compose API use our loader."""
    hydra_internals.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]
