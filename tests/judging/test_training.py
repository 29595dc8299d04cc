"""When lessons are complete, what is in them, and when their models speak."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from typical import Typical

from peerwatch.actors.judges import NoModels
from peerwatch.detectors.features import FEATURES
from peerwatch.judging.detector_judge import DetectorJudge
from peerwatch.judging.training import Learner


@dataclass
class Course:
    """What happened to a learner: of each lesson its rows' numbers, and at which count each model was taken up."""

    training_sets: list[list[int]] = field(default_factory=list)
    taken_up: list[int] = field(default_factory=list)


def follow(learner: Learner, count: int, cuts: list[int], restored: int = -1, delay: int = 0) -> Course:
    """Show it `count` purchases in parts; it is put into arrays and back before part number `restored`.

    A model is taken up when it is due, or `delay` parts later.
    """
    course, number, waited = Course(), 0, 0
    known = 0
    while learner.count < count:
        if number == restored:
            arrays = learner.arrays()
            learner = Learner(learner.rows, learner.every)
            learner.restore(arrays)
        if learner.training_set is not None and learner.training_set.version > known:
            known = learner.training_set.version
            course.training_sets.append(learner.training_set.rows[:, 0].astype(int).tolist())
        if learner.due:
            waited += 1
            if waited > delay:
                learner.activate()
                course.taken_up.append(learner.count)
                waited = 0
        part = min(cuts[number % len(cuts)], learner.room(), count - learner.count)
        unwanted = learner.unwanted(part)
        rows = np.repeat(np.arange(learner.count + unwanted, learner.count + part)[:, None], len(FEATURES), axis=1)
        learner.see(part, rows.astype(np.float64))
        number += 1
    return course


def test_lessons_come_at_doubling_counts_and_then_regularly() -> None:
    """Each is the latest purchases; its model speaks half-way to the next lesson."""
    course = follow(Learner(rows=10, every=40), 170, [1000])
    assert [(rows[0], rows[-1] + 1) for rows in course.training_sets] == [
        (0, 10), (10, 20), (30, 40), (70, 80), (110, 120), (150, 160),
    ]  # fmt: skip
    assert course.taken_up == [15, 30, 60, 100, 140]


@given(
    st.integers(1, 30), st.integers(1, 100), st.lists(st.integers(1, 80), min_size=1, max_size=9), st.integers(0, 40)
)
def test_neither_parts_nor_restarts_matter(rows: int, every: int, cuts: list[int], restored: int) -> None:
    """However the purchases are cut, and wherever the learner is written down and read again."""
    plain = follow(Learner(rows, every), 400, [1000])
    assert follow(Learner(rows, every), 400, cuts, restored) == plain
    assert all(len(training_set) == rows for training_set in plain.training_sets)


def test_a_lesson_that_comes_while_another_is_learned_is_put_off() -> None:
    """There is never more than one; every lesson is whole."""
    course = follow(Learner(rows=10, every=10), 200, [5], delay=6)
    assert all(len(rows) == 10 for rows in course.training_sets)
    assert [training_set[0] for training_set in course.training_sets] == sorted(
        training_set[0] for training_set in course.training_sets
    )
    assert len(course.training_sets) >= 3


def test_who_is_in_a_hurry_learns_from_what_comes_now() -> None:
    """The next lesson begins at once, unless one begins sooner anyway."""
    learner = Learner(rows=10, every=1000)
    learner.see(10, np.zeros((10, len(FEATURES))))
    learner.activate()
    learner.see(10, np.zeros((10, len(FEATURES))))
    learner.activate()
    assert learner.next == 40
    learner.hurry()
    assert (learner.next, learner.unwanted(5)) == (30, 0)
    learner.hurry()
    assert learner.next == 30


def test_a_change_that_waits_for_its_place_is_not_forgotten() -> None:
    """It hurries the next lesson behind a restart as well."""
    judge = DetectorJudge(Typical(), Learner(rows=10, every=1000))
    alarmed = judge.arrays() | {"alarmed": np.array(1, np.bool_)}
    judge.restore(alarmed, NoModels().load)
    assert judge.arrays()["alarmed"]
