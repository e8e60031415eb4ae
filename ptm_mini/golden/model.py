"""What the model makes of them: every way to answer with its intermediates, the router, baselines, and training steps."""
import torch

from ptm_mini.config import Situation
from ptm_mini.golden.inputs import CLIPS, CONFIG, PICTURES, clips, damages, pictures
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.method.baselines import adapter, lora, scale_shift
from ptm_mini.method.damage import Sample, damage_sample, weights_generator
from ptm_mini.method.prompts import Prompted, PromptSet, choose, prompted
from ptm_mini.method.router import Router, lowest_entropy, routed
from ptm_mini.runs.weights import learned
from ptm_mini.trace import traced
from ptm_mini.training.fit import optimiser_and_schedule

CLASSES, STEPS, SHOWN = 5, 10, 3          # SHOWN: steps whose gradients and weights are kept
LABELS = torch.tensor([0, 3, 1, 4])


def shaken(model, random, by=0.1):
    """The model with every number that learns away from its start, so that no 0 hides an error."""
    with torch.no_grad():
        for p in (p for p in model.parameters() if p.requires_grad):
            p += by * torch.randn(p.shape, generator=random)
    return model


def looked_into(model, call, prefix):
    """{prefix + name: tensor} of every intermediate of a call"""
    with traced(model) as trace:
        call()
    return {prefix + name.removeprefix("backbone."): value for name, value in trace.items()}


def answers(backbone, model, audio, image):
    """Every way to answer, with the intermediates of the plain pass and of the pass with each sample's own prompt set."""
    situations = torch.tensor(list(Situation))                                # sample s is in situation s
    found = looked_into(backbone, lambda: backbone(audio, image), "plain.")
    found |= looked_into(model, lambda: model.by_situation(audio, image, situations), "situation.")
    for depth in range(CONFIG.prompts.input_depth):                           # the first blocks' prompts alone
        own = choose(model.sets, situations)
        own = own._replace(audio_input=own.audio_input[:, :depth], image_input=own.image_input[:, :depth])
        found[f"depth.{depth}.features"] = backbone.features(audio, image, own)
    return {**found, "situation.scores": model.by_situation(audio, image, situations), "concat.scores": model(audio, image),
            "concat.features": looked_into(model, lambda: model(audio, image), "")["features"],
            "lowest_entropy.scores": lowest_entropy(model, None)(audio, image, situations)}


def routes(model, router, samples):
    """The router's view of a batch in which sample s suffers situation s, and its answers; and of missing modalities."""
    damaged = [damage_sample(*pair, CONFIG.damage, seed=0, epoch=2) for pair in zip(samples, Situation)]
    audio, image = torch.stack([one.audio for one in damaged]), torch.stack([one.image for one in damaged])
    blank = torch.zeros_like(audio), torch.zeros_like(image)
    return {"router.audio": audio, "router.image": image, "router.pooled": router.pooled(audio, image),
            "router.logits": router(audio, image), "router.picks": router.pick(audio, image),
            "router.blank_picks": torch.stack([router.pick(*pair) for pair in ((audio, blank[1]), (blank[0], image), blank)]),
            "routed.scores": routed(model, router)(audio, image, None)}


def fitted(backbone, samples):
    """A router fitted on four samples in each of the four situations, and what it was fitted on."""
    router = Router(backbone)
    batches = []
    for situation in Situation:
        for sample in samples:
            damaged = damage_sample(sample, situation, CONFIG.damage, seed=0, epoch=1)
            batches.append((damaged.audio[None], damaged.image[None], torch.tensor([int(situation)])))
    router.fit(batches, shrinkage=CONFIG.router.shrinkage)
    return router, {"router.fit.features": torch.cat([router.pooled(audio, image) for audio, image, _ in batches]),
                    "router.fit.situations": torch.cat([own for *_, own in batches])}


def loss_of(scores):
    return torch.nn.functional.cross_entropy(scores, LABELS, label_smoothing=CONFIG.train.label_smoothing)


def trained(backbone, audio, image):
    """The first three of ten steps of case-wise prompt training, on one batch, and the whole schedule."""
    def values(kind, of):
        return {f"step.{kind}.{name}": of(p).clone() for name, p in own.items()}

    model = shaken(prompted(backbone, CONFIG, weights_generator(0, Situation.NOISY_AUDIO)), torch.Generator().manual_seed(5))
    own = {name.removeprefix("sets.0."): p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    optimiser, schedule = optimiser_and_schedule(own, CONFIG.train.full_mixed, STEPS)      # one with weight decay
    found, losses, rates, betas = values("start", torch.Tensor.detach), [], [], []
    for step in range(STEPS):
        rates.append(optimiser.param_groups[0]["lr"])
        betas.append(optimiser.param_groups[0]["betas"][0])
        loss = loss_of(model(audio, image))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step < SHOWN:
            found |= values(f"gradient.{step}", lambda p: p.grad) | values(f"after.{step}", torch.Tensor.detach)
    return {**found, "step.losses": losses, "step.learning_rates": rates, "step.beta1": betas}


def trained_together(model, audio, image):
    """Loss and gradients of the stage `together`: the mean of two answers' losses, alone and side by side, sample s in
    situation s."""
    loss = (loss_of(model.by_situation(audio, image, torch.arange(len(audio)))) + loss_of(model(audio, image))) / 2
    loss.backward()
    return {"together.loss": loss.item(), **{f"together.gradient.{name.removeprefix('sets.')}": p.grad
                                             for name, p in model.named_parameters() if p.grad is not None}}


def every_array(folder):
    """Every array, {name: array or number}. folder: an empty one for the files that the front end reads"""
    random = torch.Generator().manual_seed(0)
    found = {**clips(folder), **pictures(folder), "labels": LABELS}
    audio = torch.stack([found[f"clip.{name}.audio"] for name in CLIPS])
    image = torch.stack([found[f"picture.{name}.image"] for name in list(PICTURES)[:len(CLIPS)]])
    backbone = Backbone(CONFIG, CLASSES)
    initialise(backbone, random)
    shaken(backbone, random)
    model = Prompted(backbone, [shaken(PromptSet(CONFIG, backbone.head, random), random, by=0.5) for _ in Situation])
    samples = [Sample(audio[i], image[i], torch.tensor(0), LABELS[i], name) for i, name in enumerate(CLIPS)]
    router, features = fitted(backbone, samples)
    with torch.no_grad():
        found |= {**features, **answers(backbone, model, audio, image), **routes(model, router, samples)}
        found |= damages(samples[0])
        for method in (lora, adapter, scale_shift):
            own = shaken(method(backbone, CONFIG, random), random)
            found |= {f"{method.__name__}.logits": own(audio, image)}
            found |= {f"{method.__name__}.{name}": p for name, p in learned(own).items()}
    weights = {"weights": backbone.state_dict(), "sets": learned(model), "router": learned(router)}
    found |= {f"{group}.{name.removeprefix('sets.')}": p for group, own in weights.items() for name, p in own.items()}
    return {**found, "input.audio": audio, "input.image": image, **trained(backbone, audio, image),
            **trained_together(model, audio, image)}
