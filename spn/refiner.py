"""The refiner, which turns an image and coarse masks into masks that follow the edges of the image."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import _checkpoint
from ._forms import Direct, Embedded, each
from ._frames import TILE_OVERLAP, cropped, tile_spans, whole_cells
from ._lite_windows import features_in_windows
from ._refiner_inputs import (
    check_shapes,
    check_values,
    is_plain,
    is_traced,
    only_result_counts,
    records_gradient,
)
from ._windows import Window, windows_of_objects
from .functional import normalize_gates
from .guidance import Guidance, LiteGuidance, VGG16Guidance

__all__ = ["SPNRefiner"]

GUIDANCES = {"LiteGuidance": LiteGuidance, "VGG16Guidance": VGG16Guidance}
PRETRAINED = {"lite": Path(__file__).parent / "weights" / "lite.safetensors"}
FORMS = ("embedded", "direct")
# Largest group of objects that is processed at once where no gradient is recorded, in pixels (objects x height x
# width). It bounds the memory of a call and equals two objects at 480p. Larger groups are no faster on a CPU. Many
# objects of a small image fit into one group, which avoids the overhead of several calls.
GROUP_PIXELS = 2**20
# Margin in pixels between an object and the border of its window; rounded up to the guidance's multiple.
MARGIN = 48
SPOILT = 8  # pixels along a window's border that the convolutions' zero padding affects
LARGEST_WINDOW = 0.75  # fraction of a frame; larger windows save too little time


# The windows of one object: the object's box (background outside it), the computed region, the part of it to keep.
_Windows = tuple[Window, Window, Window]


class SPNRefiner(nn.Module):
    r"""Refine coarse masks by spatial propagation, with gates from a guidance network that sees the image.

    The refiner has two forms. ``"direct"``, the form of the paper, propagates the scores of two classes at full
    resolution, foreground :math:`x_f` and background :math:`x_b`, with separate gates, and applies the softmax to the
    propagated scores:

    .. math:: x_f = \tfrac{1}{2} \operatorname{logit}(m), \quad x_b = -x_f, \quad
        f = \max_d h_d(x_f), \quad b = \max_d h_d(x_b), \quad r = \sigma(f - b)

    where :math:`m` is the coarse mask, clamped to :math:`[1/512, 511/512]`. Gates are signed and normalised by
    ``"abs"``. Zero gates result in :math:`r = m`, and a new refiner starts close to zero gates. With ``convex``, the
    gates are :math:`\sigma(g)`, so every :math:`h_d` is a convex combination of mask values:

    .. math:: f = \max_d h_d(m), \quad b = \max_d h_d(1 - m), \quad r = f / (f + b)

    ``"embedded"`` applies a strided convolution to the mask, which results in ``hidden`` channels at the resolution
    of the guidance, and adds the features of the image. It propagates these channels in four directions, repeats this
    ``rounds`` times with the same gates, and decodes the result to full resolution. The factor s is learned:

    .. math:: r = \sigma(\text{decode}(h) + s\,(m - 1/2))

    Both forms return a constant mask, such as an empty or full one, exactly as it is:

    .. math:: \text{refined} = (1 - e)\, m + e\, r, \quad e = \min(1, 4\,(\max m - \min m))

    **Windows.** On a CPU, the embedded form evaluates each object in a window. The window is the bounding box of the
    mask's values above 1/512, extended to multiples of ``guidance.multiple``, plus a margin of 48 pixels on each
    side, rounded up to the next multiple. The outermost 8 pixels, which the zero padding of the convolutions affects,
    and everything outside the window keep the coarse mask. The features in a window equal those of the whole image.
    Propagation carries nothing into a window from outside. On DAVIS at 480p, the means of the measures J, F and F2
    (see :doc:`refiner`) differ by at most 0.002 from those of whole frames. Scores of single pixels
    differ by up to 0.25 on DAVIS, and by more where a mask does not match the image.

    An object is evaluated in the whole frame if its window covers more than three quarters of the frame. All objects
    are evaluated in the whole frame

    - where a gradient is recorded, in training mode, and on other devices;
    - in traced, compiled, exported and transformed programs, and under dispatch modes;
    - in the direct form;
    - if a part of the network has hooks or parametrisations;
    - with a guidance network that sees the mask, except a :class:`~spn.LiteGuidance` whose layers are unchanged;
    - after ``refiner.windows = False``.

    Args:
        guidance: guidance network, which maps an image to features; see :mod:`spn.guidance`.
        form: "embedded" or "direct".
        hidden: number of propagated channels of the embedded form, a multiple of ``groups``.
        groups: number of channel groups of the embedded form; the channels of a group share gates. The direct form
            always has two.
        rounds: number of propagation rounds of the embedded form, >= 1.
        tile: side of the tiles in pixels, >= 256, or None. Larger images are processed in tiles of this size, which
            bounds memory. Neighbouring tiles overlap by 128 pixels.
        convex: whether the gates of the direct form are positive weights that sum to at most 1; see above.

    Shape:
        - image: (N, 3, H, W), RGB in [0, 1], any H, W >= 1.
        - coarse: (N, K, H, W), foreground scores in [0, 1], one channel per object.
        - output: (N, K, H, W), in [0, 1] and in the dtype of coarse.

    Raises:
        ValueError: an option is out of range, or ``convex`` is given with the embedded form.

    Example:
        >>> import torch
        >>> from spn import LiteGuidance, SPNRefiner
        >>> refiner = SPNRefiner(LiteGuidance()).eval()
        >>> refiner(torch.rand(1, 3, 45, 67), torch.rand(1, 2, 45, 67)).shape
        torch.Size([1, 2, 45, 67])

    Reference:
        Liu et al., "Learning Affinity via Spatial Propagation Networks", NeurIPS 2017, sections 3 and 4; Cheng
        et al., "Learning to Segment Instances in Videos with Spatial Propagation Network", CVPR Workshops
        2017, section 4.1. This package adds the log-odds, the convex form and the factor e. In the embedded form, it
        also adds the image features and the channel groups.
    """

    windows = True  # whether to evaluate objects in windows where possible

    def __init__(
        self,
        guidance: Guidance,
        *,
        form: str = "embedded",
        hidden: int = 24,
        groups: int = 4,
        rounds: int = 2,
        tile: int | None = None,
        convex: bool = False,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form must be one of {FORMS}, got {form!r}")
        if groups < 1 or hidden < 1 or hidden % groups:
            raise ValueError(f"hidden must be a multiple of groups = {groups}, got {hidden}")
        if rounds < 1:
            raise ValueError(f"rounds must be >= 1, got {rounds}")
        if tile is not None and tile < 2 * TILE_OVERLAP:
            raise ValueError(f"tile must be None or >= {2 * TILE_OVERLAP}, got {tile}")
        if convex and form != "direct":
            raise ValueError(f"convex requires form 'direct', got form {form!r}")
        self.config = {
            "form": form,
            "hidden": hidden,
            "groups": groups,
            "rounds": rounds,
            "tile": tile,
            "convex": convex,
        }
        self.guidance, self.form, self.tile = guidance, form, tile
        self.propagation: Direct | Embedded
        if form == "direct":
            self.propagation = Direct(guidance.channels, guidance.stride, convex)
        else:
            self.propagation = Embedded(guidance.channels, guidance.stride, hidden, groups, rounds)

    def forward(self, image: Tensor, coarse: Tensor, *, logits: bool = False) -> Tensor:
        """Refine coarse masks. With ``logits``, coarse and the result are unbounded log-odds instead of scores.

        Raises:
            TypeError: image or coarse is not a floating-point tensor.
            ValueError: a shape is invalid, or a value is below -0.5 or above 1.5. Typical causes are an image in
                [0, 255], a normalised image, or log-odds without ``logits``. Values that overshoot [0, 1] because of
                resampling are accepted, and so is NaN.

        Note:
            The check of the values synchronises with the GPU once. It is skipped where Python cannot read values:
            inside torch.compile, torch.export, torch.jit.trace and transforms of torch.func, while a CUDA graph is
            captured, and for meta and fake tensors.
        """
        check_shapes(image, coarse)
        if logits:
            check_values(image=image)
            return self._refine_scores(image, coarse.float().sigmoid()).logit(eps=1e-6).to(coarse.dtype)
        check_values(image=image, coarse=coarse)
        return self._refine_scores(image, coarse)

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward

    def gates(self, image: Tensor, coarse: Tensor) -> Tensor:
        """Return the normalised gates, which show the pixels that the refiner treats as belonging together.

        Args:
            image, coarse: as for the refiner itself.

        Returns:
            (N, K, 4, 3, G, h, w), with directions and taps in the operator's order. G is ``groups``, or 2 (foreground,
            background) in the direct form. In the direct form, h and w are the height and width of the image; in the
            embedded form, they are divided by the guidance's stride and rounded up. K is 1 if the guidance sees only
            the image; all objects then share its gates.

        Example:
            >>> import torch
            >>> from spn import SPNRefiner
            >>> refiner = SPNRefiner.from_pretrained("lite")
            >>> refiner.gates(torch.rand(1, 3, 45, 67), torch.rand(1, 2, 45, 67)).shape
            torch.Size([1, 2, 4, 3, 4, 23, 34])
        """
        check_shapes(image, coarse)
        check_values(image=image, coarse=coarse)
        dtype = next(self.parameters()).dtype
        padded, scores = self._padded(image.to(dtype), coarse.to(dtype))
        if self._sees_mask:
            padded, scores = _as_pictures(padded, scores)
        gates = normalize_gates(self.propagation.raw_gates(self._features(padded, scores), padded), "abs")
        height, width = (-(-side // (padded.shape[3] // gates.shape[-1])) for side in coarse.shape[2:])
        by_object: Tensor = cropped(gates, height, width).unflatten(0, (len(coarse), -1))
        return by_object

    def _refine_scores(self, image: Tensor, coarse: Tensor) -> Tensor:
        """Run the network and blend its result with the coarse mask by the factor e; in the dtype of coarse."""
        if coarse.numel() == 0:
            return coarse
        dtype = next(self.parameters()).dtype
        image, scores = image.to(dtype), coarse.to(dtype)
        refined = (
            self._refine(image, scores) if self.tile is None else self._refine_tiles(image, scores, self.tile)
        )
        contrast = scores.amax((2, 3), keepdim=True) - scores.amin((2, 3), keepdim=True)
        refined = torch.lerp(scores, refined, (4 * contrast).clamp(max=1).to(refined.dtype))
        return refined.clamp(0, 1).to(coarse.dtype)

    def _refine(self, image: Tensor, scores: Tensor) -> Tensor:
        """Run the network on images or tiles."""
        h, w = scores.shape[-2:]
        image, scores = self._padded(image, scores)
        if self._works_in_windows(image, scores):
            pictures = zip(image.split(1), scores.split(1), strict=True)
            refined = torch.cat([self._refine_picture(picture, masks) for picture, masks in pictures])
        else:
            refined = self._refine_whole(image, scores)
        return cropped(refined, h, w)

    def _refine_whole(self, image: Tensor, scores: Tensor) -> Tensor:
        """Refine objects in whole frames, one group at a time."""
        groups = self._groups(image, scores)
        if self._sees_mask:
            refined = [self._refine_apart(image, group) for group in groups]
        else:
            shared = self.propagation.of_picture(self.guidance(image), image)
            refined = [self.propagation(shared, group) for group in groups]
        return refined[0] if len(refined) == 1 else torch.cat(refined, 1)

    def _works_in_windows(self, image: Tensor, scores: Tensor) -> bool:
        """Whether to use windows: on a CPU, in evaluation mode, where no hook could observe maps of whole frames."""
        if not self.windows or self.form != "embedded":
            return False
        if not only_result_counts(image, scores, *self.parameters()):
            return False
        parts = list(self.modules())[1:]  # a hook on the refiner itself sees the same values either way
        if any(not is_plain(part, type(part)) or part.training for part in parts):
            return False
        lite = self.guidance if type(self.guidance) is LiteGuidance else None
        return not self._sees_mask or (lite is not None and lite.is_as_built())

    def _refine_picture(self, image: Tensor, scores: Tensor) -> Tensor:
        """Refine one image: objects in their windows, large objects in the whole frame; empty masks stay unchanged."""
        windows, large = self._windows_of(image, scores)
        if len(large) == scores.shape[1]:
            return self._refine_whole(image, scores)
        refined = scores.clone()
        if large:
            refined[:, large] = self._refine_whole(image, scores[:, large])
        for (k, (_, wanted, kept)), shared in zip(
            windows.items(), self._shared_in_windows(image, scores, windows), strict=True
        ):
            part = self.propagation(shared, wanted.of(scores[:, k : k + 1]))
            kept.of(refined[:, k : k + 1]).copy_(kept.inside(wanted).of(part))
        return refined

    def _windows_of(self, image: Tensor, scores: Tensor) -> tuple[dict[int, _Windows], list[int]]:
        """Return the windows by object, and the objects to refine in the whole frame."""
        frame, cell = Window.whole(image), self.guidance.multiple
        if image.isnan().any():  # NaN spreads to every mask
            return {}, list(range(scores.shape[1]))
        margin = -(-MARGIN // cell) * cell
        large: list[int] = []
        windows: dict[int, _Windows] = {}
        for k, own in enumerate(windows_of_objects(scores[0])):
            if own is None:
                continue
            own = own.over(cell).times(cell)  # few distinct sizes: the first convolution of each is slow
            wanted = own.grown(margin, frame)
            if wanted.area > LARGEST_WINDOW * frame.area:
                large.append(k)
            else:
                windows[k] = own, wanted, own.grown(margin - SPOILT, frame)
        return windows, large

    def _shared_in_windows(
        self, image: Tensor, scores: Tensor, windows: dict[int, _Windows]
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield the inputs of the propagation besides the scores, one object at a time."""
        if not windows:
            return
        if self._sees_mask:
            masks = scores[0, list(windows)].unsqueeze(1)
            pairs = [(own, wanted) for own, wanted, _ in windows.values()]
            guidance = cast(LiteGuidance, self.guidance)
            features = features_in_windows(guidance, image, masks, pairs)
            for (_, wanted), own_features in zip(pairs, features, strict=True):
                yield self.propagation.of_picture(own_features, wanted.of(image))
        else:
            shared = self.propagation.of_picture(self.guidance(image), image)
            for _, wanted, _ in windows.values():
                yield tuple(wanted.over(image.shape[-1] // maps.shape[-1]).of(maps) for maps in shared)

    def _refine_apart(self, image: Tensor, scores: Tensor) -> Tensor:
        """Refine objects whose features differ: each becomes a separate image."""
        pictures, masks = _as_pictures(image, scores)
        own = self.propagation.of_picture(self._features(pictures, masks), pictures)
        refined: Tensor = self.propagation(own, masks).squeeze(1).unflatten(0, scores.shape[:2])
        return refined

    @property
    def _sees_mask(self) -> bool:
        return getattr(self.guidance, "sees_mask", False)

    def _features(self, image: Tensor, masks: Tensor) -> Tensor:
        return self.guidance(torch.cat([image, masks], 1) if self._sees_mask else image)

    def _groups(self, image: Tensor, scores: Tensor) -> Sequence[Tensor]:
        """Split objects into groups of bounded size, unless this would change the result or save nothing."""
        recorded = records_gradient(image, scores, *self.parameters())
        if is_traced() or recorded or any(module.training for module in self.modules()):
            return [scores]
        n, _, h, w = scores.shape
        pixels = GROUP_PIXELS * (1 if self._sees_mask else self.propagation.GROUP_FACTOR)
        groups: Sequence[Tensor] = scores.split(max(1, pixels // (n * h * w)), 1)
        return groups

    def _padded(self, image: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Pad image and masks to multiples of the guidance's cells; unconditionally if traced, for other sizes."""
        h, w = scores.shape[-2:]
        multiple = self.guidance.multiple
        pad = (0, whole_cells(w, multiple) - w, 0, whole_cells(h, multiple) - h)
        if is_traced() or any(pad):
            return F.pad(image, pad, mode="replicate"), F.pad(scores, pad, mode="replicate")
        return image, scores

    def _refine_tiles(self, image: Tensor, scores: Tensor, tile: int) -> Tensor:
        """Refine overlapping tiles and keep, of each, the part nearer to its centre than to the neighbours' centres."""
        rows = tile_spans(scores.shape[-2], tile)
        columns = tile_spans(scores.shape[-1], tile)
        parts = []
        for top, bottom, first, last in rows:
            row = []
            for left, right, start, stop in columns:
                part = self._refine(image[..., top:bottom, left:right], scores[..., top:bottom, left:right])
                row.append(part[..., first - top : last - top, start - left : stop - left])
            parts.append(torch.cat(row, -1))
        return torch.cat(parts, -2)

    def save_pretrained(self, path: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> None:
        """Write weights and configuration to one safetensors file.

        Args:
            path: file to write. It is written atomically.
            dtype: floating-point dtype to store, e.g. ``torch.float16``; None keeps the dtype of each tensor.
        """
        state = self.state_dict()
        if dtype is not None:
            state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
        config = {
            **self.config,
            "guidance": type(self.guidance).__name__,
            "guidance_config": getattr(self.guidance, "config", {}),
        }
        _checkpoint.save(state, path, {"format": "pt", "spn_refiner": json.dumps(config)})

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        guidance: Guidance | None = None,
        tile: int | None = None,
    ) -> SPNRefiner:
        """Load a refiner with trained weights, in float32 and evaluation mode.

        Args:
            name: "lite", which ships with the package, or the path of a file from :meth:`save_pretrained`.
            guidance: guidance network, required only if the file was saved with a custom guidance class.
            tile: see :class:`SPNRefiner`.

        Example:
            >>> from spn import SPNRefiner
            >>> refiner = SPNRefiner.from_pretrained("lite")
        """
        path = Path(PRETRAINED.get(os.fspath(name), name))
        if not path.is_file():
            raise ValueError(
                f"name must be one of {sorted(PRETRAINED)} or the path of a checkpoint, got {str(name)!r}"
            )
        state, metadata = _checkpoint.load(path)
        if "spn_refiner" not in metadata:
            raise ValueError(f"name must be a file from SPNRefiner.save_pretrained, got {os.fspath(name)!r}")
        try:
            config = json.loads(metadata["spn_refiner"])
            kind, guidance_config = config.pop("guidance"), config.pop("guidance_config")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"name must be a file from SPNRefiner.save_pretrained, got {os.fspath(name)!r} ({error!r})"
            ) from error
        if guidance is None and (not isinstance(kind, str) or kind not in GUIDANCES):
            raise ValueError(f"guidance must be given: the checkpoint uses the custom guidance {kind}")
        try:
            if guidance is None:
                guidance = GUIDANCES[kind](**guidance_config)
            refiner = cls(guidance, **{**config, "tile": tile})
            refiner.load_state_dict(state)
        except (TypeError, RuntimeError) as error:  # an unknown option, or tensors of other shapes
            reason = " ".join(str(error).split())
            raise ValueError(
                f"name must be a checkpoint of this version's refiner, got {os.fspath(name)!r} ({reason})"
            ) from error
        # On a CPU, convolutions of few channels are faster in the channels-last layout.
        return refiner.float().to(memory_format=torch.channels_last).eval()


def _as_pictures(image: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Reshape (N, 3, H, W) and (N, K, H, W) to (N K, 3, H, W) and (N K, 1, H, W)."""
    return each(image, scores.shape[1]), scores.flatten(0, 1).unsqueeze(1)
