"""Modules of the library transformers, newly initialised or with pretrained weights."""

from collections.abc import Collection
from typing import Any

from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.utils import logging

from tasks.core.config import Config
from tasks.core.pretrained import KEY, Pretrained
from tasks.core.transforms import TensorSpec


def pretrained_config(family: Config, name: str, kinds: Collection[str], sizes: Collection[str], **changes: Any) -> PretrainedConfig:
    """The configuration of a pretrained model of one of these `model_type`s, with changes.

    Raises ConfigError where it is of another, or the recipe also gives one of the `sizes`, which are the model's own.
    """
    if given := family.model_fields_set & set(sizes):
        raise family.origin.error((min(given),), "a pretrained model has its own sizes", f"leave out {', '.join(sorted(given))}")
    found = Pretrained.find(name, family.origin.below(KEY))
    kind = found.config.get("model_type")
    if kind not in kinds:
        raise family.origin.error((KEY,), f"'{name}' is a model of the type {kind!r}", f"this family takes {', '.join(sorted(kinds))}")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(found.folder, local_files_only=True, **changes)
    except Exception as error:  # whatever a broken configuration makes the library raise
        raise family.origin.error((KEY,), f"'{name}': its config.json cannot be used: {_first_line(error)}") from error
    return config


def pretrained_module(family: Config, name: str, config: PretrainedConfig) -> Any:
    """The pretrained model itself, without any head. Raises ConfigError where its weights are not those of its configuration."""
    found = Pretrained.find(name, family.origin.below(KEY))
    library: Any = logging
    bar, verbosity = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        module, told = AutoModel.from_pretrained(
            found.folder, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype="float32"
        )
    except Exception as error:  # the library's and safetensors' errors have no common base
        raise family.origin.error((KEY,), f"'{name}': its weights cannot be read: {_first_line(error)}", "fetch them again") from error
    finally:
        library.set_verbosity(verbosity)
        if bar:
            library.enable_progress_bar()
    lacking = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
    if lacking:
        raise family.origin.error(
            (KEY,),
            f"'{name}' lacks {len(lacking)} of the weights that its config.json asks for, {lacking[0]} first",
            "config.json and model.safetensors belong to different models: fetch both again",
        )
    return module


def require_fit(family: Config, ids: TensorSpec, vocabulary: int, positions: int | None) -> None:
    """Raises ConfigError where token ids or lengths go beyond what the embeddings of a pretrained model hold."""
    if ids.vocabulary and ids.vocabulary > vocabulary:
        raise family.origin.error(
            (KEY,),
            f"its tokenizer has {ids.vocabulary:,} entries, its embeddings {vocabulary:,}: the tokenizer belongs to another model",
            "fetch config.json, model.safetensors and tokenizer.json again, all from one model",
        )
    if positions and ids.longest and ids.longest > positions:
        raise family.origin.error(
            (KEY,),
            f"it has {positions} positions, and the transform keeps up to {ids.longest} tokens",
            f"set transform.length to {positions} or less",
        )


def require_division(family: Config, hidden: int, heads: int) -> None:
    """Raises ConfigError where features cannot be shared out equally among attention heads."""
    if hidden % heads:
        raise family.origin.error(
            ("hidden",), f"{hidden} features do not divide into {heads} heads", f"set hidden to a multiple of {heads}"
        )


def new_module(config: PretrainedConfig) -> Any:
    """The model that a configuration describes, newly initialised."""
    model: Any = AutoModel
    return model.from_config(config)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
