"""Decide what the values in the masks of a folder mean: labels, void, one object, or scores."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from vos_pipeline.data.masks import VOID, StoredMask, read_stored
from vos_pipeline.errors import PipelineError, warn
from vos_pipeline.settings import SMALLEST_SCORE

# A soft mask is one object whose boundary has values between 0 and 255, caused by JPEG, antialiasing or resizing.
SOFT_OBJECT = 224  # larger or equal values belong to the object
SOFT_BACKGROUND = 31  # smaller or equal values belong to the background
SOFT_THRESHOLD = 128  # divides the values between the two
OUTLINE_WIDTH = 6  # largest width of a soft boundary in pixels: an edge after bilinear interpolation by 8
FEW_VALUES = 16  # up to 16 values may be labels; more values are not, if some of them are high
FEW_VALUES_OUTLINE = 4  # largest width of a soft boundary with up to 16 values
FEWEST_SHADES = 3  # fewer values are labels, unless all of them are next to 0 or 255

REMEDY = "save one index per object (1, 2, ...) in indexed PNGs, or only 0 and 255"

Table = np.ndarray  # uint8 (256,): label of each stored value


def read_labels(path: str | Path) -> np.ndarray:
    """Read a single mask; :class:`MaskFolder` describes the meaning of its values.

    Returns:
        uint8 (H, W): 0 is background, 1 to 254 are objects, 255 is void.

    Raises:
        PipelineError: the file is missing, damaged or not a mask, or its values are not labels.
    """
    return MaskFolder([path]).read(path)


class MaskFolder:
    """Masks that belong together, such as the masks of one video: a value means the same in all of them.

    A palette mask contains one index per object. If all palette masks contain only 0 and 255, 255 is one object with
    label 1. If other indices occur, 255 is void.

    The same applies to grey masks (8 bits, 1 bit, equal channels). Because tools write grey masks in several ways,
    these rules are added:

    - Without values from 64 to 254, the values are labels.
    - In soft masks, most values are close to 0 or 255, with a boundary of intermediate values. They contain one object:
      values from 128. The boundary is at most 6 pixels wide (4 if it has up to 16 shades; 1 or 2 shades must be next to
      0 or 255).
    - Up to 16 other values without 255, such as 50, 100 and 150, are labels.
    - Everything else is an error: 100 and 255 may be an object and void, or two objects; dozens of values may be
      scores. JPEG and other lossy formats may contain soft masks or masks of 0 and 255, but no labels.

    A file is read when it is requested. If its meaning depends on the other files, all files are read once.

    Args:
        paths: files of the masks.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self._survey: MaskSurvey | None = None
        self._warned = False

    def read(self, path: str | Path) -> np.ndarray:
        """Return the labels of one mask, uint8 (H, W): 0 is background, 1 to 254 are objects, 255 is void.

        Raises:
            PipelineError: the file is missing, damaged or not a mask, or the values of these masks are not labels.
        """
        mask = self._read_stored(path)
        if mask.palette and not _is_binary(mask.values):
            return mask.values  # indices are labels, independent of the other masks
        survey = self.survey(known={Path(path): mask})
        return (survey.palette if mask.palette else survey.grey).table[mask.values]

    def read_scores(self, path: str | Path) -> np.ndarray:
        """Return the stored values of a grey mask, uint8 (H, W)."""
        return read_stored(path).values

    def labels(self, path: Path | None = None) -> set[int]:
        """Return the labels that occur in one mask, or in any mask if path is None, without background and void."""
        survey = self.survey()
        if path is None:
            return set().union(*(self.labels(other) for other in self.paths))
        values = survey.values[path]
        table = survey.palette.table if path in survey.palette.paths else survey.grey.table
        return {int(label) for label in table[values]} - {0, VOID}

    def survey(self, progress: bool = False, known: dict[Path, StoredMask] | None = None) -> MaskSurvey:
        """Return sizes and values of all masks, which are read once.

        Args:
            progress: show a progress bar after two seconds.
            known: masks that have already been read.
        """
        if self._survey is None:
            survey, known = MaskSurvey(), known or {}
            for path in tqdm(
                self.paths, "check masks", unit="mask", disable=not progress, delay=2, leave=False
            ):
                survey.add(path, known.get(path) or self._read_stored(path))
            self._survey = survey
        return self._survey

    def _read_stored(self, path: str | Path) -> StoredMask:
        """Return the stored values; warn once if a tool may have moved the background by sorting the palette."""
        mask = read_stored(path)
        if mask.black is not None and not self._warned:
            self._warned = True
            warn(
                f"{path}: index 0 is read as background, but it is not black and index {mask.black} is; "
                "if black is the background, save the mask with black as index 0, or as a grey image"
            )
        return mask


class MaskSurvey:
    """Sizes (height, width) and values of the masks of a folder, with palette and grey masks kept separately."""

    def __init__(self) -> None:
        self.palette, self.grey = PaletteMasks(), GreyMasks()
        self.sizes: dict[Path, tuple[int, int]] = {}
        self.values: dict[Path, np.ndarray] = {}

    def add(self, path: Path, mask: StoredMask) -> None:
        height, width = mask.values.shape
        self.sizes[path] = (height, width)
        self.values[path] = np.flatnonzero(_counts(mask.values))
        (self.palette if mask.palette else self.grey).add(path, mask, self.values[path])


class PaletteMasks:
    """The palette masks of a folder."""

    def __init__(self) -> None:
        self.paths: dict[Path, None] = {}  # an ordered set
        self.first_with: dict[int, Path] = {}  # the first mask that contains each value

    def add(self, path: Path, mask: StoredMask, values: np.ndarray) -> None:
        self.paths[path] = None
        for value in values:
            self.first_with.setdefault(int(value), path)

    @property
    def inner(self) -> list[int]:
        """Values other than 0 and 255, sorted."""
        return sorted(self.first_with.keys() - {0, 255})

    @cached_property
    def table(self) -> Table:
        """The label of each value."""
        return _as_stored() if self.inner else _one_object(255)


class GreyMasks(PaletteMasks):
    """The grey masks of a folder; :class:`MaskFolder` describes the meaning of their values."""

    def __init__(self) -> None:
        super().__init__()
        self.lossy: Path | None = None
        self.blurred: Path | None = None  # the first mask whose boundary is too wide for a soft mask
        self.outline = 0  # width of the widest band between background and object in pixels, capped
        self.inner_width = 0  # width of the widest band of values other than 0 and 255, capped
        self.solid: set[int] = set()  # values that fill at least one square of 3 x 3 pixels

    def add(self, path: Path, mask: StoredMask, values: np.ndarray) -> None:
        super().add(path, mask, values)
        if mask.lossy and self.lossy is None:
            self.lossy = path
        if not np.any((values > 0) & (values < 255)):
            return
        between = (mask.values > SOFT_BACKGROUND) & (mask.values < SOFT_OBJECT)
        self.outline = max(self.outline, _width(between))
        if self.outline > OUTLINE_WIDTH and self.blurred is None:
            self.blurred = path
        self.inner_width = max(self.inner_width, _width((mask.values > 0) & (mask.values < 255)))
        square = np.ones((3, 3), np.uint8)
        flat = cv2.erode(mask.values, square) == cv2.dilate(mask.values, square)
        self.solid.update(np.unique(mask.values[flat]).tolist())

    @property
    def hold_scores(self) -> bool:
        """Whether a value is too high for a label, so that masks of unknown origin contain scores."""
        return any(value >= SMALLEST_SCORE for value in self.inner)

    @cached_property
    def table(self) -> Table:
        """The label of each value; raises PipelineError if the values are not labels."""
        if not self.inner:
            return _one_object(255)
        if (self.lossy or self.hold_scores) and self._soft:
            return _one_object(SOFT_THRESHOLD)
        if self.lossy:
            raise PipelineError(
                f"{self.lossy}: this lossy format (such as JPEG) changes labels, and the masks contain "
                f"{len(self.inner)} values besides 0 and 255; save them as indexed PNGs"
            )
        if self.hold_scores:
            self._check_labels()
        self._check_outlines()
        return _as_stored()

    @property
    def _soft(self) -> bool:
        if max(self.first_with) < SOFT_OBJECT:
            return False
        if self.lossy or len(self.inner) > FEW_VALUES:
            return self.outline <= OUTLINE_WIDTH
        if self.inner_width > FEW_VALUES_OUTLINE:
            return False
        flat = not any(SOFT_BACKGROUND < value < SOFT_OBJECT for value in self.inner)
        return len(self.inner) >= FEWEST_SHADES or (flat and 255 in self.first_with)

    def _check_labels(self) -> None:
        """Raise PipelineError if values of at least SMALLEST_SCORE are not labels."""
        high = next(value for value in self.inner if value >= SMALLEST_SCORE)
        if len(self.inner) > FEW_VALUES:
            raise PipelineError(
                f"{self.blurred or self.first_with[high]}: grey masks with {len(self.inner)} values besides 0 and 255 "
                f"are neither labels nor one object with a soft boundary; {REMEDY}"
            )
        if 255 in self.first_with:
            values = ", ".join(map(str, self.inner))
            raise PipelineError(
                f"{self.first_with[high]}: grey masks with the values {values} and 255 are ambiguous, because 255 "
                f"means void if other labels occur; {REMEDY}"
            )

    def _check_outlines(self) -> None:
        """Report values that occur only in thin bands between others: interpolation causes them along boundaries."""
        thin = [value for value in self.inner if value not in self.solid]
        if len(thin) < FEWEST_SHADES or len(thin) == len(self.inner):
            return
        path = self.first_with[thin[0]]
        found = f"{path}: {len(thin)} of the {len(self.inner)} grey values occur only along boundaries"
        if self.hold_scores:
            raise PipelineError(f"{found}, so they are not labels; {REMEDY}")
        warn(
            f"{found}, but each value is read as an object; if these masks were resized, resize them with "
            "nearest-neighbour interpolation"
        )


def _as_stored() -> Table:
    return np.arange(256, dtype=np.uint8)


def _one_object(smallest: int) -> Table:
    return (np.arange(256) >= smallest).astype(np.uint8)


def _counts(values: np.ndarray) -> np.ndarray:
    return cv2.calcHist([values], [0], None, [256], [0, 256]).ravel()


def _is_binary(values: np.ndarray) -> bool:
    """Return whether a mask contains 255 and no other value except 0."""
    return bool(values.max() == 255) and not _counts(values)[1:255].any()


def _width(region: np.ndarray) -> int:
    """Return the side of the largest square inside the region, at most OUTLINE_WIDTH + 1."""
    region = region.astype(np.uint8)
    for width in range(OUTLINE_WIDTH + 1):
        if not region.any():
            return width
        region = cv2.erode(region, np.ones((2, 2), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return OUTLINE_WIDTH + 1
