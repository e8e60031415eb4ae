"""Raw sets, as they are before data_prep."""
import gzip
import struct
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
    "image": ("Audio/{s.label}/{s.stem}.FLAC", "IMAGE/{s.title}/{s.stem}.Png"),
    "audio_dataset": ("audio_dataset/{s.title}/{s.stem}.ogg", "visual/{s.label}/{s.stem}.JPEG"),
    "train, test": ("{s.side}/audio/{s.label}/{s.stem}.wav",
                    "{s.side}/visual/{s.title}/{s.stem}.png"),
    "train, dev, test": ("{s.split}/audio/{s.label}/{s.stem}.wav",
                         "{s.split}/visual/{s.label}/{s.stem}.png"),
}


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


def write_digits(folder: Path, images: int = 40, compress: bool = True) -> tuple[Path, Path]:
    """Write FSDD recordings 0-11 of two digits, and MNIST files in which each image is one grey."""
    (folder / "fsdd").mkdir(parents=True)
    (folder / "mnist").mkdir()
    for digit in range(2):
        for index in range(12):
            wave = 0.1 * np.random.default_rng([digit, index]).standard_normal(800)
            soundfile.write(folder / "fsdd" / f"{digit}_anna_{index}.wav", wave, 8000)
    greys = np.repeat(np.arange(images, dtype=np.uint8), 784).tobytes()
    labels = bytes(i % 2 for i in range(images))
    for name, content in (
            ("t10k-images-idx3-ubyte", struct.pack(">4i", 0x803, images, 28, 28) + greys),
            ("t10k-labels-idx1-ubyte", struct.pack(">2i", 0x801, images) + labels)):
        path = folder / "mnist" / (name + ".gz" * compress)
        path.write_bytes(gzip.compress(content) if compress else content)
    return folder / "fsdd", folder / "mnist"
