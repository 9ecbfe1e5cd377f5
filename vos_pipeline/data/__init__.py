"""Read and write images, label masks and videos; open DAVIS sequences, user videos and synthetic clips."""

from vos_pipeline.data.coarse import CoarseSequence, mask_folders
from vos_pipeline.data.davis import has_train_set, load_davis, load_sets, load_train_set, load_truth
from vos_pipeline.data.decoding import decoded_files, frame_rate
from vos_pipeline.data.first_frame import FirstFrame, MaskedVideo, check_frame, described
from vos_pipeline.data.folders import has_images, list_files, list_images, listing
from vos_pipeline.data.frames import load_frames
from vos_pipeline.data.images import image_size, read_image, upright, write_image
from vos_pipeline.data.labels import MaskFolder, read_labels
from vos_pipeline.data.masks import VOID, davis_palette, is_mask, write_labels
from vos_pipeline.data.sequence import Sequence, without
from vos_pipeline.data.set_lists import read_set
from vos_pipeline.data.soft_scores import all_hold_scores, has_score_arrays, is_object_name
from vos_pipeline.data.synthetic import clip_files, make_clips
from vos_pipeline.data.video import write_video

__all__ = [
    "VOID",
    "CoarseSequence",
    "FirstFrame",
    "MaskFolder",
    "MaskedVideo",
    "Sequence",
    "all_hold_scores",
    "check_frame",
    "clip_files",
    "davis_palette",
    "decoded_files",
    "described",
    "frame_rate",
    "has_images",
    "has_score_arrays",
    "has_train_set",
    "image_size",
    "is_mask",
    "is_object_name",
    "list_files",
    "list_images",
    "listing",
    "load_davis",
    "load_frames",
    "load_sets",
    "load_train_set",
    "load_truth",
    "make_clips",
    "mask_folders",
    "read_image",
    "read_labels",
    "read_set",
    "upright",
    "without",
    "write_image",
    "write_labels",
    "write_video",
]
