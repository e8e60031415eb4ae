"""Raw sets, as they are before data_prep."""
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image


@dataclass
class Sample:
    label: str
    stem: str
    split: str


# {layout: where a sample's audio and image are}
LAYOUTS = {
    "vision": ("audio/{s.label}/{s.stem}.wav", "vision/{s.label}/{s.stem}.png"),
    "dataset_v3": ("Dataset_v3_sound/{s.label}/{s.stem}.wav",
                   "Dataset_v3_vision/{s.label}/{s.stem}.jpg"),
    "audio_dataset": ("audio_dataset/{title}/{s.stem}.FLAC", "IMAGE/{s.label}/{s.stem}.Jpeg"),
    "one below": ("raw/sound/{s.label}/{s.stem}.ogg", "raw/images/{s.label}/{s.stem}.png"),
    "classes": ("raw/{s.label}/audio/{s.stem}.wav", "raw/{s.label}/images/{s.stem}.png"),
    "splits": ("{s.split}/audio/{s.label}/{s.stem}.wav", "{s.split}/visual/{title}/{s.stem}.png"),
    "splits below": ("raw/{s.split}/audio/{s.label}/{s.stem}.wav",
                     "raw/{s.split}/visual/{s.label}/{s.stem}.png")}


def make_samples(recordings: int = 10, slices: int = 1,
                 labels: Iterable[str] = ("car_horn", "dog_bark")) -> list[Sample]:
    """Name slices of recordings as UrbanSound8K does, with splits for the layouts of these."""
    return [Sample(label, f"{100 * c + r}-{c}-0-{n}", ("train", "val", "test")[r % 3])
            for c, label in enumerate(labels) for r in range(recordings) for n in range(slices)]


def write_samples(folder: Path, samples: list[Sample], layout: str = "vision", rate: int = 8000,
                  seconds: float = 0.05, size: tuple[int, int] = (4, 4)) -> Path:
    """Write samples of noise, each with another content."""
    for number, sample in enumerate(samples):
        title = sample.label.replace("_", " ").title()
        audio, image = (folder / path.format(s=sample, title=title) for path in LAYOUTS[layout])
        audio.parent.mkdir(parents=True, exist_ok=True)
        image.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([number, len(samples)])
        soundfile.write(audio, noise.uniform(-0.1, 0.1, round(rate * seconds)), rate)
        pixels = noise.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
    return folder
