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
    split: str             # of train, val and test
    side: str              # of train and test

    @property
    def title(self) -> str:
        return self.label.replace("_", " ").title()


# {layout: where a sample's audio and image are}
LAYOUTS = {
    "vision": ("audio/{s.label}/{s.stem}.wav", "vision/{s.label}/{s.stem}.png"),
    "dataset_v3": ("Dataset_v3_sound/{s.label}/{s.stem}.wav",
                   "Dataset_v3_vision/{s.label}/{s.stem}.jpg"),
    "audio_dataset": ("audio_dataset/{s.title}/{s.stem}.FLAC", "IMAGE/{s.label}/{s.stem}.Jpeg"),
    "one below": ("raw/audio/{s.label}/{s.stem}.ogg", "raw/images/{s.label}/{s.stem}.png"),
    "train, test": ("{s.side}/audio/{s.label}/{s.stem}.wav",
                    "{s.side}/visual/{s.title}/{s.stem}.png"),
    "train, dev, test below": ("raw/{s.split}/audio/{s.label}/{s.stem}.wav",
                               "raw/{s.split}/visual/{s.label}/{s.stem}.png")}


def make_samples(recordings: int = 10, slices: int = 1,
                 labels: Iterable[str] = ("car_horn", "dog_bark")) -> list[Sample]:
    """Name slices of recordings as UrbanSound8K does, and give each a split for the layouts."""
    return [Sample(label, f"{100 * c + r}-{c}-0-{n}", ("training", "dev", "test")[r % 3],
                   "test" if r % 3 == 2 else "train")
            for c, label in enumerate(labels) for r in range(recordings) for n in range(slices)]


def write_samples(folder: Path, samples: list[Sample], layout: str = "vision", rate: int = 8000,
                  seconds: float = 0.05, size: tuple[int, int] = (4, 4)) -> Path:
    """Write samples of noise, each with another content."""
    for number, sample in enumerate(samples):
        audio, image = (folder / path.format(s=sample) for path in LAYOUTS[layout])
        audio.parent.mkdir(parents=True, exist_ok=True)
        image.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([number, len(samples)])
        soundfile.write(audio, noise.uniform(-0.1, 0.1, round(rate * seconds)), rate)
        pixels = noise.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
    return folder
