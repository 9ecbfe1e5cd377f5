"""The flow filter: drawn examples for each step, with a known optical flow."""

import numpy as np
import pytest
from drawings import Drawn, labels, scores_of, text_of

from vos_pipeline.temporal import FlowFilter, FlowFilterParameters

EXACT = {"reach": 0, "growth": 0, "found": 1}  # only regions that touch the carried mask stay

# --- step 1: the carried mask -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "kept"),
    [((0, 0), "....aa...."), ((2, 0), "..aa......"), ((-2, 0), "......aa.."), ((-1.4, 0.4), ".....aa...")],
)
def test_the_mask_is_carried_against_the_flow_back(flow, kept):
    # Each column separately: the pixel at x was at x + flow before.
    columns = ["." * x + "a" + "." * (9 - x) for x in range(10)]
    texts = [Drawn("....aa....", flow=flow, **EXACT).step(column) for column in columns]
    assert "".join(text[x] for x, text in enumerate(texts)) == kept


def test_the_mask_is_carried_by_whole_pixels():
    first, corner = ("a...", "....", "..aa", "..aa"), ("a...", "....", "....", "....")
    assert Drawn(*first, flow=(0.4, 0.4), **EXACT).step(*corner) == "\n".join(corner)


def test_rows_follow_the_second_component():
    first, above, below = ("..", "..", "aa", ".."), ("..", "a.", "..", ".."), ("..", "..", "..", "a.")
    assert Drawn(*first, flow=(0, 1), **EXACT).step(*above) == "\n".join(above)
    assert Drawn(*first, flow=(0, 1), **EXACT).step(*below) == ".."


def test_regions_that_enter_the_frame_do_not_belong_to_the_object():
    # The object moves to the right by 3. At its old place, the flow points outside the frame.
    assert Drawn("aaaa......", flow=(-3, 0), **EXACT).step("a.........") == ".........."
    assert Drawn("aaaa......", flow=(-3, 0), **EXACT).step("...a......") == "...a......"


def test_an_object_carried_out_of_the_frame_is_expected_where_it_left():
    video = Drawn("......aaaa", flow=(-20, 0), **EXACT)
    assert video.step("..........") == ".........."
    assert video.step("aa......aa") == "........aa"


# --- step 2: regions near the carried mask ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "kept"),
    [("aaaa.a....", "aaaa.a...."), ("aaaa..a...", "aaaa......"), ("aaaa..aaaa", "aaaa......")],
)
def test_a_region_within_reach_stays(now, kept):
    # The square root of the area is 4, so the reach is exactly 2 pixels.
    assert Drawn("aaaa......", reach=0.5).step(now) == kept


def test_parts_that_touch_the_carried_mask_stay_however_far_apart():
    assert Drawn("a...a....a", reach=0).step("a...a....a") == "a...a....a"
    assert Drawn("a...a....a", reach=0).step("a.a.a....a") == "a...a....a"


def test_connectivity_decides_whether_a_diagonal_joins_a_region():
    first, now = ("aa..", "aa..", "....", "...."), ("aa..", "aa..", "..aa", "..aa")
    assert Drawn(*first, reach=0).step(*now) == "\n".join(now)
    assert Drawn(*first, reach=0, connectivity=4).step(*now) == "\n".join(first)


def test_the_threshold_makes_regions():
    scores = np.where(labels("aaa...aaaa")[None] > 0, 0.6, 0)
    frame = np.zeros((4, 10, 3), np.uint8)
    for threshold, removed in ((0.6, True), (0.61, False)):
        video = FlowFilter(frame, labels("aaa.......")[None] > 0, FlowFilterParameters(threshold=threshold))
        assert (video.step(scores, frame)[0, 0, 6] == 0) == removed


def test_the_reach_counts_pixels_of_the_frame():
    # At half the size, two pixels of the frame are one pixel of the flow.
    first, near, far = "aaaaaaaa........", "aaaaaaaa...aa...", "aaaaaaaa......aa"
    rows = [(row,) * 8 + ("." * 16,) * 4 for row in (first, near, far)]
    video = Drawn(*rows[0], reach=0.25, side=6)  # the square root of the area is 8
    assert video.step(*rows[1]) == "\n".join(rows[0])
    video = Drawn(*rows[0], reach=0.5, side=6)
    assert video.step(*rows[1]) == "\n".join(rows[1])
    video = Drawn(*rows[0], reach=0.75, side=6)
    assert video.step(*rows[2]) == "\n".join(rows[0])


# --- step 3: who gets a region ------------------------------------------------------------------------------


def test_a_removed_region_has_no_score_for_any_object():
    now = "aaaa....aa..bbbb"
    scores = scores_of(labels(now), 2)
    filtered = Drawn("aaaa........bbbb", objects=2).scores(now)
    assert not filtered[:, :, 8:10].any()
    filtered[:, :, 8:10] = scores[:, :, 8:10]
    np.testing.assert_array_equal(filtered, scores)  # other scores are unchanged, also below the threshold


def test_scores_in_the_box_around_a_removed_region_are_unchanged():
    first = ("aa......", "aa......", "aa...b..", "........")
    now = ("aa..aaaa", "aa..a..a", "aa..ab.a", "....aaaa")
    scores = scores_of(labels(*now), 2)
    filtered = Drawn(*first, objects=2).scores(*now)
    assert text_of(filtered) == "\n".join(first)
    removed = labels(*now) != labels(*first)
    np.testing.assert_array_equal(filtered, np.where(removed, 0, scores))


def test_a_region_on_another_object_goes_there_with_its_score():
    now = "aabb....bbbb....cccc"
    scores = scores_of(labels(now), 3)
    filtered = Drawn("aaaa....bbbb....cccc", objects=3).scores(now)
    assert text_of(filtered) == "aaaa....bbbb....cccc"
    np.testing.assert_array_equal(filtered[:, 0, 2], [scores[1, 0, 2], 0, 0])
    np.testing.assert_array_equal(filtered[..., 4:], scores[..., 4:])


@pytest.mark.parametrize(
    ("now", "then", "complete"),
    [
        ("aab..bbbb", "aaa..bbbb", 0.7),  # b has more than enough without it
        ("aab..bbb.", "aaa..bbb.", 0.75),  # exactly enough
        ("aab..bbb.", "aab..bbb.", 0.76),  # not enough, so the region stays
        ("aab..b...", "aab..b...", 0.7),
    ],
)
def test_a_near_region_goes_to_another_object_only_if_its_object_is_complete(now, then, complete):
    assert Drawn("aaaa.bbbb", objects=2, reach=0.75, complete=complete).step(now) == then


def test_an_incomplete_object_loses_a_far_region_to_the_object_it_lies_on():
    assert Drawn("aaaa.......bbbb", objects=2).step("aabb.......b...") == "aaaa.......b..."


@pytest.mark.parametrize(("own", "then"), [(0.25, "abbbb.bb"), (0.26, "aaaaa.bb")])
def test_a_region_that_its_own_object_covers_stays(own, then):
    # A quarter of the middle region lies on b and the rest on a. b is complete without it.
    assert Drawn("aaaabbbb", objects=2, own=own, complete=0.5).step("abbbb.bb") == then


def test_only_the_cover_by_other_objects_decides_who_gets_a_region():
    # 3 of 5 columns lie on b, which is less than `own`, and 2 on a. b is complete without them.
    video = Drawn("aaaabbbb.bbb", objects=2, own=0.7, other=0.4, complete=0.4)
    assert video.step("..bbbbb..bbb") == "..aaaaa..bbb"


@pytest.mark.parametrize(("other", "then"), [(0.5, "aa.aa......bbbb"), (0.51, "aa.........bbbb")])
def test_the_share_of_a_region_on_the_other_object(other, then):
    assert Drawn("aaaa.......bbbb", objects=2, other=other).step("aa.bb......bbbb") == then


def test_a_region_on_no_object_is_removed_for_any_value_of_other():
    assert Drawn("aaaa.......bbbb", objects=2, other=0).step("aaaa...bb..bbbb") == "aaaa.......bbbb"


@pytest.mark.parametrize(
    ("first", "now", "then"),
    [
        ("aabb.......cccc", ".cc........cccc", "...........cccc"),  # half on a, half on b
        ("aabbb......cccc", ".ccc.......cccc", ".bbb.......cccc"),
        ("aaabb......cccc", ".ccc.......cccc", ".aaa.......cccc"),
        ("a.bdd......cccc", "cccccc.....cccc", "dddddd.....cccc"),  # a tie, then a larger cover
        ("aab.d......cccc", "cccccc.....cccc", "aaaaaa.....cccc"),  # a tie of smaller covers
    ],
)
def test_the_largest_cover_is_selected_and_ties_remove_the_region(first, now, then):
    assert Drawn(first, objects=4).step(now) == then


@pytest.mark.parametrize(("found", "then"), [(0.5, "..........aa.."), (0.51, "..............")])
def test_an_object_that_would_lose_all_regions_keeps_the_largest(found, then):
    assert Drawn("aaaa..........", found=found).step("........a.aa..") == then


def test_an_object_with_a_near_region_keeps_no_far_region():
    assert Drawn("aaaa..........").step("a.....aaaaaaaa") == "a............."


def test_the_kept_region_is_one_that_no_other_object_gets():
    assert Drawn("aaaa......bbbb......", objects=2).step("bbbb.............bb.") == "aaaa.............bb."


def test_an_object_that_appears_keeps_all_of_its_regions():
    video = Drawn("aaaa............", objects=2)
    assert video.step("aabb....b.....b.") == "aabb....b.....b."  # one of them covers a part of a
    assert video.filter._areas.tolist() == [pytest.approx(16 + 0.1 * (8 - 16)), 16]
    assert Drawn("aaaa............", objects=2, complete=0).step("bb.............b") == "bb.............b"


def test_an_object_that_appeared_is_followed():
    video = Drawn("aa..............", objects=2, reach=0.25, growth=0)
    assert video.step("aa..bb..........") == "aa..bb.........."
    assert video.step("aa..bb......b..b") == "aa..bb.........."


# --- step 4: the state ---------------------------------------------------------------------------------------


def test_usual_area_and_missing_count_by_hand():
    video = Drawn("aaaa............", found=1)

    def numbers(row):
        video.step(row)
        return float(video.filter._areas[0]), float(video.filter._missing[0])

    # A = 16, so m = 1 - a / 8.
    assert numbers("a...............") == (16, 0.5)  # a = 4 gives m = 1/2, so the usual area stays
    assert numbers("................") == (16, 1.5)
    assert numbers("a...............") == (16, 1.25)
    assert numbers("aa..............") == (pytest.approx(15.2), 0)  # 16 + 0.1 (8 - 16)
    assert numbers("aaaa............") == (pytest.approx(15.28), 0)
    assert Drawn("aaaa....", rate=1).filter._areas[0] == 16


def test_the_area_follows_at_the_rate():
    video = Drawn("aaaa....", rate=0.5)
    video.step("aaaaaa..")
    assert video.filter._areas[0] == 20


@pytest.mark.parametrize(("part", "then"), [("aa......", "aa....aa"), ("aaa.....", "aa......")])
def test_the_old_place_is_remembered_while_half_is_missing(part, then):
    # The usual area is 32. With 8 visible pixels m = 1/2; with 12, m < 1/2 and the old place is forgotten.
    video = Drawn("aaaaaaaa", **EXACT)
    video.step(part)
    assert video.step("aa....aa") == then


@pytest.mark.parametrize(("frames", "then"), [(2, "...."), (3, "aaa.")])
def test_the_reach_grows_with_every_missing_frame(frames, then):
    # The reach is (0.5 + 0.25 n) 4 = 2 + n pixels, and the distance of the object is 5.
    video = Drawn("aaaa........", reach=0.5, growth=0.25, found=1)
    for _ in range(frames):
        video.step("............")
    assert video.step("........aaa.") == "........" + then


def test_the_reach_is_small_again_once_the_object_is_back():
    video = Drawn("aaaa............", reach=0.5, growth=1, found=1)
    for _ in range(3):
        video.step("................")
    assert video.step("........aaaa....") == "........aaaa...."
    assert video.step("........aaaa.aa.") == "........aaaa.aa."
    assert video.step("aa......aaaa....") == "........aaaa...."


def test_the_last_region_kept_counts_as_missing():
    video = Drawn("aaaa............", reach=0.25)
    assert video.step("..........aaaa..") == "..........aaaa.."
    assert (video.filter._areas[0], video.filter._missing[0]) == (16, 1)
    assert video.step("aaaa......aaaa..") == "aaaa......aaaa.."  # the old place is remembered too


def test_a_region_that_was_given_away_counts_for_the_new_object():
    video = Drawn("aaaa....bbbb", objects=2, **EXACT)
    video.step("bbbb....bbbb")
    assert video.filter._areas.tolist() == [16, 16] and video.filter._missing.tolist() == [0, 0]
    assert video.step("aaaa........") == "aaaa........"


# --- errors -------------------------------------------------------------------------------------------------

FRAME, FIRST, SCORES = (
    np.zeros((6, 8, 3), np.uint8),
    np.zeros((2, 6, 8), bool),
    np.zeros((2, 6, 8), np.float32),
)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (FRAME[..., :1], r"got uint8 \(6, 8, 1\)"),
        (FRAME[..., 0], r"got uint8 \(6, 8\)"),
        (FRAME / 255, r"got float64 \(6, 8, 3\)"),
        (FRAME[:, :0], r"got uint8 \(6, 0, 3\)"),
        (FRAME.tolist(), "got list"),
    ],
)
def test_bad_frames_are_errors(frame, says):
    with pytest.raises(ValueError, match=r"^first_frame must be uint8 RGB \(H, W, 3\), " + says):
        FlowFilter(frame, FIRST)
    with pytest.raises(ValueError, match=r"^frame must be uint8 RGB \(H, W, 3\) = \(6, 8, 3\), " + says):
        FlowFilter(FRAME, FIRST).step(SCORES, frame)


def test_frames_of_another_size_are_errors():
    with pytest.raises(ValueError, match=r"^frame must be .* = \(6, 8, 3\), got uint8 \(8, 6, 3\)"):
        FlowFilter(FRAME, FIRST).step(SCORES, FRAME.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (FIRST[0], r"got bool \(6, 8\)"),
        (FIRST[:0], r"got bool \(0, 6, 8\)"),
        (FIRST[:, :5], r"got bool \(2, 5, 8\)"),
        (np.zeros((256, 6, 8), bool), r"got bool \(256, 6, 8\)"),
        (SCORES, r"got float32 \(2, 6, 8\)"),
        (FIRST.tolist(), "got list"),
    ],
)
def test_bad_first_masks_are_errors(first, says):
    with pytest.raises(
        ValueError, match=r"^first must be bool \(K, H, W\) = \(K, 6, 8\).* 1 to 255, " + says
    ):
        FlowFilter(FRAME, first)


def test_bad_scores_are_errors():
    import torch

    for scores, says in (
        (SCORES[:1], r"float32 \(1, 6, 8\)"),
        (SCORES[0], r"float32 \(6, 8\)"),
        (SCORES[:, :, :7], r"float32 \(2, 6, 7\)"),
        (SCORES.astype(np.uint8), r"uint8 \(2, 6, 8\)"),
        (torch.zeros(2, 6, 8), "Tensor"),
        (SCORES.tolist(), "list"),
    ):
        with pytest.raises(ValueError, match=r"^scores must be float \(K, H, W\) = \(2, 6, 8\), got " + says):
            FlowFilter(FRAME, FIRST).step(scores, FRAME)


def test_integer_masks_are_accepted():
    first = labels("aaaa........")[None]
    scores = scores_of(labels("aaaa......aa"), 1)
    frame = np.zeros((4, 12, 3), np.uint8)
    assert text_of(FlowFilter(frame, first * np.int64(7)).step(scores, frame)) == "aaaa........"
