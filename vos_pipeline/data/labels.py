"""What the values in the masks of one folder mean: labels, void, one object, or scores."""

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

# A soft mask is one object with an outline of values between 0 and 255, as JPEG, antialiasing or resizing leave it.
SOFT_OBJECT = 224  # values from here to 255 belong to the object,
SOFT_BACKGROUND = 31  # values up to here to the background;
SOFT_THRESHOLD = 128  # what lies between is divided here,
OUTLINE_WIDTH = 6  # and no wider than this: what bilinear interpolation by 8 leaves of an edge
FEW_VALUES = 16  # as many labels are likely in a grey mask; more, with high ones among them, are not
FEW_VALUES_OUTLINE = 4  # so few values are an outline only if it is thin,
FEWEST_SHADES = 3  # and has as many shades: fewer are labels, unless all of them are next to 0 or 255

REMEDY = "save one index per object (1, 2, ...) in indexed PNGs, or 0 and 255 alone"

Table = np.ndarray  # uint8 (256,): from a stored value to a label


def read_labels(path: str | Path) -> np.ndarray:
    """Read a mask that stands alone, see :class:`MaskFolder`.

    Returns:
        uint8 (H, W): 0 is background, 1..254 are objects, 255 is void.

    Raises:
        PipelineError: the file is missing or damaged, no mask, or its values are not labels.
    """
    return MaskFolder([path]).read(path)


class MaskFolder:
    """Masks that belong together, such as those of one video: their values mean the same in all of them.

    A palette mask holds an index per object. If the palette masks hold only 0 and 255, 255 is one object, label 1;
    beside other indices 255 is void.

    The same holds for the grey masks (8 bits, 1 bit, equal channels), with these differences, because tools write
    grey masks in more ways than one:

    - No value from 64 to 254: labels.
    - Soft masks, whose values gather at 0 and 255 with an outline between: one object, which begins at 128. An outline
      is no wider than 6 pixels (4 where it has up to 16 shades; 1 or 2 shades must be next to 0 or 255).
    - Up to 16 other values without 255, such as 50, 100 and 150: labels.
    - Anything else is an error: 100 beside 255 may be an object beside void, or two objects; dozens of values may be
      scores. JPEG and other formats that change values hold soft masks or masks of 0 and 255, no labels.

    Files are read when they are asked for; all of them, once, where the meaning of one depends on the others.

    Args:
        paths: the masks.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self._survey: MaskSurvey | None = None
        self._warned = False

    def read(self, path: str | Path) -> np.ndarray:
        """Labels of one of the masks, uint8 (H, W): 0 is background, 1..254 are objects, 255 is void.

        Raises:
            PipelineError: the file is missing or damaged, no mask, or the values of these masks are not labels.
        """
        mask = self._read_stored(path)
        if mask.palette and not _is_binary(mask.values):
            return mask.values  # indices are labels, whatever the other masks hold
        survey = self.survey(known={Path(path): mask})
        return (survey.palette if mask.palette else survey.grey).table[mask.values]

    def read_scores(self, path: str | Path) -> np.ndarray:
        """Values of a grey mask as they are stored, uint8 (H, W)."""
        return read_stored(path).values

    def labels(self, path: Path | None = None) -> set[int]:
        """Labels that occur in one of the masks, or in any of them: without background and void."""
        survey = self.survey()
        if path is None:
            return set().union(*(self.labels(other) for other in self.paths))
        values = survey.values[path]
        table = survey.palette.table if path in survey.palette.paths else survey.grey.table
        return {int(label) for label in table[values]} - {0, VOID}

    def survey(self, progress: bool = False, known: dict[Path, StoredMask] | None = None) -> MaskSurvey:
        """What all masks hold; they are read once.

        Args:
            progress: show a bar if it takes more than a moment.
            known: masks that were read already.
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
        """The stored values; a warning, once, where tools that sort a palette have moved the background."""
        mask = read_stored(path)
        if mask.black is not None and not self._warned:
            self._warned = True
            warn(
                f"{path}: index 0 is taken as background, but its colour is not black, and that of index {mask.black} "
                "is; if black is the background, save the mask with black as index 0, or in grey"
            )
        return mask


class MaskSurvey:
    """What the masks of a folder hold: their sizes (height, width), their values, palette and grey masks apart."""

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
        self.paths: dict[Path, None] = {}  # in order
        self.first_with: dict[int, Path] = {}  # of each value, the first mask that holds it

    def add(self, path: Path, mask: StoredMask, values: np.ndarray) -> None:
        self.paths[path] = None
        for value in values:
            self.first_with.setdefault(int(value), path)

    @property
    def inner(self) -> list[int]:
        """Values but 0 and 255, sorted."""
        return sorted(self.first_with.keys() - {0, 255})

    @cached_property
    def table(self) -> Table:
        """The label of each value."""
        return _as_stored() if self.inner else _one_object(255)


class GreyMasks(PaletteMasks):
    """The grey masks of a folder, see :class:`MaskFolder` for what their values mean."""

    def __init__(self) -> None:
        super().__init__()
        self.lossy: Path | None = None
        self.blurred: Path | None = None  # the first whose outline, if it is one, is too wide
        self.outline = 0  # pixels across the widest band between background and object,
        self.inner_width = 0  # and of values but 0 and 255; both up to one more than any outline
        self.solid: set[int] = set()  # values that fill a square of 3 x 3 pixels somewhere

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
        """Whether a value is no likely label, so that masks of unknown origin hold scores."""
        return any(value >= SMALLEST_SCORE for value in self.inner)

    @cached_property
    def table(self) -> Table:
        """The label of each value; PipelineError if they are no labels."""
        if not self.inner:
            return _one_object(255)
        if (self.lossy or self.hold_scores) and self._soft:
            return _one_object(SOFT_THRESHOLD)
        if self.lossy:
            raise PipelineError(
                f"{self.lossy}: this format changes labels (JPEG does), and the masks hold "
                f"{len(self.inner)} values beside 0 and 255; save them as indexed PNGs"
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
        """PipelineError if values from SMALLEST_SCORE on are not labels."""
        high = next(value for value in self.inner if value >= SMALLEST_SCORE)
        if len(self.inner) > FEW_VALUES:
            raise PipelineError(
                f"{self.blurred or self.first_with[high]}: grey masks with {len(self.inner)} values beside 0 and 255 "
                f"are neither labels nor one object with a soft outline; {REMEDY}"
            )
        if 255 in self.first_with:
            values = ", ".join(map(str, self.inner))
            raise PipelineError(
                f"{self.first_with[high]}: grey masks with the values {values} and 255 are ambiguous, because 255 "
                f"means void beside other labels; {REMEDY}"
            )

    def _check_outlines(self) -> None:
        """Speak up where labels lie between others as thin bands alone, which interpolation leaves of an edge."""
        thin = [value for value in self.inner if value not in self.solid]
        if len(thin) < FEWEST_SHADES or len(thin) == len(self.inner):
            return
        path = self.first_with[thin[0]]
        found = f"{path}: {len(thin)} of the {len(self.inner)} grey values occur in outlines alone"
        if self.hold_scores:
            raise PipelineError(f"{found}, so they are no labels; {REMEDY}")
        warn(
            f"{found}; if these masks were resized, resize them by nearest neighbour: each value is an object"
        )


def _as_stored() -> Table:
    return np.arange(256, dtype=np.uint8)


def _one_object(smallest: int) -> Table:
    return (np.arange(256) >= smallest).astype(np.uint8)


def _counts(values: np.ndarray) -> np.ndarray:
    return cv2.calcHist([values], [0], None, [256], [0, 256]).ravel()


def _is_binary(values: np.ndarray) -> bool:
    """Whether a mask holds 255, and beside it 0 alone."""
    return bool(values.max() == 255) and not _counts(values)[1:255].any()


def _width(region: np.ndarray) -> int:
    """Side of the largest square inside the region, up to one more than any outline is wide."""
    region = region.astype(np.uint8)
    for width in range(OUTLINE_WIDTH + 1):
        if not region.any():
            return width
        region = cv2.erode(region, np.ones((2, 2), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return OUTLINE_WIDTH + 1
