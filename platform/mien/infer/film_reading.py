"""A trained method over a film of any length: rows for its windows and for its frames.

::

    for part in FilmReading(location, network, settings).parts():
        part.windows, part.frames        # as soon as they are final, in order

The film is read once. Each person's crops go through the same functions that made the training's
batches, so that a clip looks the same to the network in both. What is held: the crops of the window
that is being read, the windows that the network has not answered, and their frames' numbers.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from mien.clips.labels import LabelSet
from mien.clips.manifest import ClipRef
from mien.infer.network import Answer, BatchedNetwork, Floats
from mien.infer.people import Person, SeenFrame, seen_frames
from mien.infer.post_filter import PostFilter
from mien.infer.rows import FrameRow, Part, WindowRow
from mien.infer.windows import Cut, Window, WindowCutter, Windowing
from mien.media.film import Film
from mien.media.storage import absolute
from mien.stream.batches import Row
from mien.stream.load import ClipRequest, load_clip
from mien.stream.plan import DEFAULT, LoadPlan
from mien.stream.prepare import SAMPLE_RATE_HZ, ChooseFrames, PreparedClip
from mien_models.contract import StreamSpec

NO_FACE = "no_face"
"""Why a window has no label: nobody was found in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmSettings:
    """How films are predicted."""

    windowing: Windowing = field(default_factory=Windowing)
    max_people: int = 8
    """So many people of a window are predicted, those whose faces cover the most of the picture."""
    threads: int = 1
    """Cores that look for faces in one film."""
    post_filter_frames: int = 1
    """Frames of the `PostFilter` over the frames' class probabilities; 1: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldClip(LoadPlan):
    """Loads the frames of one person and the sound that a reading holds."""

    frames: tuple[tuple[SeenFrame, Person], ...]
    start_s: float
    audio: np.ndarray | None
    audio_rate_hz: int

    def prepare(self, ref: ClipRef, spec: StreamSpec, choose_frames: ChooseFrames) -> PreparedClip:
        wanted = list(choose_frames(len(self.frames)))
        chosen = [self.frames[number] for number in wanted]
        crops = [person.crop_SSC for _, person in chosen if person.crop_SSC is not None]
        return PreparedClip(
            frames_NSSC=np.stack(crops),
            frame_numbers_N=np.asarray(wanted, dtype=np.int64),
            frame_times_N=np.array([max(0.0, frame.time_s - self.start_s) for frame, _ in chosen]),
            has_face_N=np.ones(len(chosen), dtype=np.bool_),
            audio=self.audio,
            audio_rate_hz=self.audio_rate_hz,
            num_frames=len(self.frames),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What the network was asked about one person in one window."""

    track: int | None
    faces: float | None
    times_T: Floats
    """Of the sampled frames, since the film's start."""
    answer: Future[Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class _AskedWindow:
    window: Window
    next_start_s: float
    has_audio: bool
    questions: tuple[_Question, ...]

    @property
    def is_answered(self) -> bool:
        return all(question.answer.done() for question in self.questions)


@dataclass(slots=True)
class _WaitingFrame:
    """A frame whose windows are not all answered."""

    frame: SeenFrame
    answers: dict[int | None, list[tuple[Floats, Floats | None, Floats | None]]] = field(
        default_factory=dict
    )


class FilmReading:
    """One film, read once.

    Args:
        location: A path or URI of a media file or a folder of pictures.
        network: Answers for each window.
        settings: How it is cut, and who is looked at.
        plan: How training read its clips; of it, only crops and sound matter here.
    """

    def __init__(
        self,
        location: str,
        network: BatchedNetwork,
        settings: FilmSettings | None = None,
        plan: LoadPlan = DEFAULT,
    ) -> None:
        self.location = absolute(location)
        self.settings = settings or FilmSettings()
        self._network = network
        self._crops = plan.crops(network.stream)
        self._label_set = LabelSet(name="model", classes=network.classes)
        rate_hz = None if self._crops.native_sound else SAMPLE_RATE_HZ
        self.film = Film(
            self.location,
            with_sound=self._crops.with_audio,
            sample_rate_hz=rate_hz,
            picture_order=self._crops.picture_order,
        )
        self.num_windows = self.num_frames = self.num_faceless_windows = self.num_silent_windows = 0
        self._post_filter = PostFilter(self.settings.post_filter_frames)
        self._tracks = _Counter()
        self._asked: deque[_AskedWindow] = deque()
        self._waiting: deque[_WaitingFrame] = deque()

    @property
    def num_people(self) -> int:
        """Tracks that were predicted."""
        return self._tracks.count

    def parts(self) -> Iterator[Part]:
        """Rows in order, as soon as they are final.

        Raises:
            ClipError: the file can't be used; says why.
            BrokenNetworkError: the network's answers are not numbers.
        """
        settings = self.settings
        cutter: WindowCutter[SeenFrame] = WindowCutter(settings.windowing)
        frames = seen_frames(
            self.film,
            self._crops,
            max_people=settings.max_people,
            longest_window_s=settings.windowing.longest_s,
            num_threads=settings.threads,
        )
        for frame in frames:
            self._waiting.append(_WaitingFrame(frame.without_crops()))
            for cut in cutter.push(frame):
                self._ask(cut)
            yield from self._answered(most_waiting=2 * self._network.batch_size)
        for cut in cutter.finish(self.film.duration_s):
            self._ask(cut)
        yield from self._answered(most_waiting=0)
        last = (*self._final_frames(math.inf), *self._post_filter.finish())
        yield Part(windows=(), frames=last)

    def warnings(self) -> list[str]:
        """What a reader of the rows should know; when all of them were read."""
        told = []
        if self.num_faceless_windows:
            told.append(
                f"nobody's face was found in {self.num_faceless_windows} of {self.num_windows} "
                "windows; they have no label"
            )
        if self._crops.with_audio and self.num_silent_windows == self.num_windows:
            told.append(
                "the file has no sound that can be decoded; the labels rest on the picture alone"
            )
        if self.film.refused:
            told.append(f"{self.film.refused} damaged places were passed over")
        if self.film.missing_s:
            told.append(
                f"the film should last {self.film.missing_s:.1f} s longer: the file was cut off; "
                "what there is was predicted. Copy or download it again."
            )
        return told

    def _ask(self, cut: Cut[SeenFrame]) -> None:
        """Hands a window's people to the network and lets go what no further window needs."""
        window, sound, rate_hz = cut.window, None, 0
        if self.film.sound is not None:
            is_whole_film = cut.is_last and window.start_s == 0
            heard = self.film.sound.samples(window.start_s, window.end_s, is_last=is_whole_film)
            if heard is not None:
                sound, rate_hz = heard.samples, heard.rate_hz
            if math.isfinite(cut.next_start_s):
                self.film.sound.let_go_before(cut.next_start_s)
        questions = []
        for track, found in self._people(cut).items():
            held = _HeldClip(
                frames=tuple(found), start_s=window.start_s, audio=sound, audio_rate_hz=rate_hz
            )
            row = self._row(held, window)
            times_T = np.asarray(row["view0/times"], dtype=np.float64) + window.start_s
            shown = sum(any(p.track == track for p in frame.people) for frame in cut.frames)
            share = None if track is None else shown / len(cut.frames)
            answer = self._network.ask(row)
            questions.append(_Question(track=track, faces=share, times_T=times_T, answer=answer))
        self._asked.append(
            _AskedWindow(
                window=window,
                next_start_s=cut.next_start_s,
                has_audio=sound is not None,
                questions=tuple(questions),
            )
        )

    def _people(self, cut: Cut[SeenFrame]) -> dict[int | None, list[tuple[SeenFrame, Person]]]:
        """The frames in which each person was cut out; who covers the most comes first."""
        found: dict[int | None, list[tuple[SeenFrame, Person]]] = {}
        for frame in cut.frames:
            for person in frame.people:
                if person.crop_SSC is not None:
                    found.setdefault(person.track, []).append((frame, person))

        def area_px(track: int | None) -> float:
            return sum(person.face.area_px for _, person in found[track] if person.face)

        largest = sorted(found, key=area_px, reverse=True)[: self.settings.max_people]
        return {track: found[track] for track in largest}

    def _row(self, held: _HeldClip, window: Window) -> Row:
        name = f"{self.location} at {window.start_s:.2f} s"
        return load_clip(
            ClipRequest(
                ref=ClipRef(clip_id=name, uri=self.location),
                spec=self._network.stream,
                label_set=self._label_set,
                subject=-1,
                seed=0,
                plan=held,
            )
        )

    def _answered(self, most_waiting: int) -> Iterator[Part]:
        """Parts whose windows are answered; waits for answers if too many are open."""
        while self._asked and (len(self._asked) > most_waiting or self._asked[0].is_answered):
            asked = self._asked.popleft()
            rows = tuple(self._window_rows(asked))
            self.num_windows += 1
            self.num_faceless_windows += not asked.questions
            self.num_silent_windows += not asked.has_audio
            yield Part(windows=rows, frames=tuple(self._final_frames(asked.next_start_s)))

    def _window_rows(self, asked: _AskedWindow) -> Iterator[WindowRow]:
        window, has_audio = asked.window, asked.has_audio
        if not asked.questions:
            yield WindowRow(
                start_s=window.start_s, end_s=window.end_s, has_audio=has_audio, reason=NO_FACE
            )
        for question in sorted(asked.questions, key=lambda question: question.track or 0):
            answer = question.answer.result()
            self._tracks.note(question.track)
            self._tell_frames(window, question, answer)
            yield WindowRow(
                start_s=window.start_s,
                end_s=window.end_s,
                track=question.track,
                probabilities=tuple(answer.probabilities_K.tolist()),
                faces=question.faces,
                has_audio=has_audio,
                audio_effect=answer.audio_effect,
                video_effect=answer.video_effect,
                features=() if answer.features_D is None else tuple(answer.features_D.tolist()),
                picture=() if answer.picture_P is None else tuple(answer.picture_P.tolist()),
            )

    def _tell_frames(self, window: Window, question: _Question, answer: Answer) -> None:
        for waiting in self._waiting:
            time_s = waiting.frame.time_s
            if time_s >= window.end_s:
                break
            units = _at(time_s, question.times_T, answer.units_TU)
            intensities = _at(time_s, question.times_T, answer.intensities_TU)
            told = waiting.answers.setdefault(question.track, [])
            told.append((answer.probabilities_K, units, intensities))

    def _final_frames(self, before_s: float) -> Iterator[FrameRow]:
        while self._waiting and self._waiting[0].frame.time_s < before_s - 5e-4:
            waiting = self._waiting.popleft()
            self.num_frames += 1
            yield from self._post_filter.push(tuple(_frame_rows(waiting)))


class _Counter:
    """Counts tracks without keeping them: their numbers count up."""

    def __init__(self) -> None:
        self.count = 0
        self._newest: set[int | None] = set()

    def note(self, track: int | None) -> None:
        if track in self._newest:
            return
        self.count += 1
        self._newest.add(track)
        if len(self._newest) > 1000:
            self._newest.remove(min(self._newest, key=lambda number: number or 0))


def _at(time_s: float, times_T: Floats, values_TU: Floats | None) -> Floats | None:
    """Values between sampled frames, on straight lines; beyond the outermost, theirs."""
    if values_TU is None:
        return None
    return np.array(
        [np.interp(time_s, times_T, values_TU[:, unit]) for unit in range(values_TU.shape[1])]
    )


def _frame_rows(waiting: _WaitingFrame) -> Iterator[FrameRow]:
    frame = waiting.frame
    if not frame.people:
        yield FrameRow(frame=frame.index, time_s=frame.time_s, has_face=False)
    for person in frame.people:
        told = waiting.answers.get(person.track, [])
        yield FrameRow(
            frame=frame.index,
            time_s=frame.time_s,
            has_face=None if person.face is None else True,
            track=person.track,
            score=None if person.face is None else person.face.score,
            box=None if person.face is None else tuple(person.face.box.tolist()),
            probabilities=_mean([probabilities for probabilities, _, _ in told]),
            units=_mean([units for _, units, _ in told if units is not None]),
            intensities=_mean([steps for _, _, steps in told if steps is not None]),
        )


def _mean(values: list[Floats]) -> tuple[float, ...]:
    return tuple(np.mean(values, axis=0).tolist()) if values else ()
