"""ImageNet-1k from a tree of folders, from tar archives, or from the Hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from had.errors import HadError
from had.tasks.hub import HubUnavailableError
from had.tasks.images.hub import HubImages
from had.tasks.images.shards import ShardImages
from had.tasks.images.sources import Images, class_folders
from had.tasks.images.task import ImageTask


@dataclass(kw_only=True, eq=False)
class ImageNetTask(ImageTask):
    """1.28 million training and 50,000 validation images of 1,000 classes.

    Attributes:
        path: holds the folders train and val: in each, one folder a class (the order of their
            names numbers the classes), or tar archives; archives may also lie in `path` itself.
        train_shards: pattern of the training archives in `path`.
        eval_shards: pattern of the validation archives.
        hub: the data set on the Hub, asked where there is neither.
        hub_train: its training split.
        hub_eval: its validation split.
        hub_image: its column of images.
        hub_label: its column of labels.
    """

    path: str
    train_shards: str
    eval_shards: str
    hub: str
    hub_train: str
    hub_eval: str
    hub_image: str
    hub_label: str

    def _find(self) -> tuple[Images, Mapping[str, Images]]:
        places: tuple[Callable[[], tuple[Images, Images] | None], ...]
        places = (self._from_archives, self._from_folders, self._from_hub)
        train, evaluation = next(found for place in places if (found := place()) is not None)
        return train, {"": evaluation}

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser()

    def _from_folders(self) -> tuple[Images, Images] | None:
        train, evaluation = self._root / "train", self._root / "val"
        if not train.is_dir() or not evaluation.is_dir():
            return None
        return class_folders(train), class_folders(evaluation)

    def _from_archives(self) -> tuple[Images, Images] | None:
        train, evaluation = (
            sorted(self._root.glob(pattern)) for pattern in (self.train_shards, self.eval_shards)
        )
        if not train or not evaluation:
            return None
        cache = Path(self.cache).expanduser()
        return (
            ShardImages.open_all(train, cache, f"{self.path}/{self.train_shards}"),
            ShardImages.open_all(evaluation, cache, f"{self.path}/{self.eval_shards}"),
        )

    def _from_hub(self) -> tuple[Images, Images]:
        try:
            train, evaluation = (
                HubImages.load(self.hub, split, self.hub_image, self.hub_label)
                for split in (self.hub_train, self.hub_eval)
            )
        except HubUnavailableError as error:
            raise HadError(
                f"task.path={self.path}: neither train/<class>/<image> and val/<class>/<image> nor "
                f"archives {self.train_shards} and {self.eval_shards} in it, and the Hub has no "
                f"{self.hub} in reach ({error}); put the images there, or go online"
            ) from error
        return train, evaluation
