"""Train the sample detector on rendered streets and write it as ONNX.

python data/samples/make/train.py --frames 9600 --epochs 64 --seed 1 --out data/samples/models/sample_detector.onnx

Frames are rendered once into --work and found there again; a checkpoint a epoch lets an interrupted training go on.
With a GPU this takes minutes; on a CPU it runs the same code slowly.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from detector import CLASSES, HEIGHT, STRIDES, WIDTH, Detector, write_onnx
from frames import load, render_streets, say, street_file, training_seeds
from torch import Tensor, nn
from torch.nn import functional

CANDIDATES = 10
CENTRE_RADIUS = 2.0


def grid(device: torch.device) -> Tensor:
    """(N, 3): cell x, cell y, stride of each output row."""
    parts = []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(HEIGHT // stride), torch.arange(WIDTH // stride), indexing="ij")
        parts.append(torch.stack([x.flatten(), y.flatten(), torch.full((x.numel(),), stride)], 1))
    return torch.cat(parts).float().to(device)


def decoded(rows: Tensor, cells: Tensor) -> Tensor:
    """Raw (…, 4) to corners (…, 4) in input pixels."""
    centre = (rows[..., :2] + cells[:, :2]) * cells[:, 2:]
    half = torch.exp(rows[..., 2:4].clamp(max=6.0)) * cells[:, 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of corners, broadcast."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1) + (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) - shared
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    iou = shared / area.clamp(min=1e-6)
    return iou, iou - (hull - area) / hull.clamp(min=1e-6)


@torch.no_grad()
def assign(boxes: Tensor, rows: Tensor, truth: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SimOTA (Ge et al., YOLOX, 2021): per output row its object or -1, its IoU, and whether to ignore it.

    boxes (B, N, 4) corners, rows (B, N, 9) logits, truth (B, M, 6) class, corners, ignored; class -1 is no object.
    """
    real = (truth[..., 0] >= 0) & (truth[..., 5] < 0.5)
    centres = (cells[:, :2] + 0.5) * cells[:, 2:]
    goal = truth[..., 1:5]
    inside = ((centres > goal[:, :, None, :2]) & (centres < goal[:, :, None, 2:])).all(-1)
    middle = (goal[..., :2] + goal[..., 2:]) / 2
    close = ((centres - middle[:, :, None]).abs() < CENTRE_RADIUS * cells[:, 2:]).all(-1)
    iou, _ = overlaps(goal[:, :, None], boxes[:, None])
    kind = truth[..., 0].clamp(min=0).long()
    score = (rows[..., 5:].sigmoid() * rows[..., 4:5].sigmoid()).sqrt().clamp(1e-6, 1 - 1e-6)
    right = torch.gather(score.transpose(1, 2), 1, kind[..., None].expand(-1, -1, score.shape[1]))
    wrong = -torch.log1p(-score).sum(-1)[:, None]
    kind_cost = -right.log() + wrong + torch.log1p(-right)
    cost = kind_cost - 3 * (iou + 1e-8).log() + 1e4 * ~(inside & close)
    cost = cost.masked_fill(~((inside | close) & real[..., None]), math.inf)
    wanted = torch.topk(iou.masked_fill(cost.isinf(), 0), CANDIDATES, dim=-1).values.sum(-1).int().clamp(min=1)
    value, index = torch.topk(cost, CANDIDATES, dim=-1, largest=False)
    chosen = (torch.arange(CANDIDATES, device=cost.device) < wanted[..., None]) & ~value.isinf()
    picked = torch.zeros_like(cost, dtype=torch.bool).scatter_(-1, index, chosen)
    best = cost.masked_fill(~picked, math.inf).min(1)
    owner = torch.where(picked.any(1), best.indices, -1)
    own_iou = torch.gather(iou, 1, owner.clamp(min=0)[:, None]).squeeze(1)
    ignored = (inside & ((truth[..., 0] >= 0) & (truth[..., 5] > 0.5))[..., None]).any(1) & (owner < 0)
    return owner, own_iou, ignored


def loss_of(rows: Tensor, truth: Tensor, cells: Tensor) -> Tensor:
    """5 x GIoU + objectness + class, per matched row."""
    boxes = decoded(rows, cells)
    owner, iou, ignored = assign(boxes, rows, truth, cells)
    matched = owner >= 0
    count = matched.sum().clamp(min=1)
    goal = torch.gather(truth, 1, owner.clamp(min=0)[..., None].expand(-1, -1, 6))[matched]
    _, generalised = overlaps(boxes[matched], goal[:, 1:5])
    box_loss = (1 - generalised).sum() / count
    there = functional.binary_cross_entropy_with_logits(rows[..., 4], matched.float(), reduction="none")
    object_loss = there.masked_fill(ignored, 0).sum() / count
    target = functional.one_hot(goal[:, 0].long(), len(CLASSES)) * iou[matched][:, None]
    kind_loss = functional.binary_cross_entropy_with_logits(rows[matched][:, 5:], target, reduction="sum") / count
    return 5 * box_loss + object_loss + kind_loss


def augmented(images: Tensor, boxes: Tensor, random: torch.Generator, *, gentle: bool) -> tuple[Tensor, Tensor]:
    """Flip, scale, shift, colour, blur, noise: (B, H, W, 3) uint8 to (B, 3, 288, 512) float; boxes to its pixels."""
    count, height, width = images.shape[:3]
    device = images.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=random, device=device) * (high - low) + low

    spread = 0.12 if gentle else 0.35
    zoom = torch.exp(uniform(-spread, spread * 1.3))
    stretch = torch.exp(uniform(-0.06, 0.06))
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    room = (1 - 1 / zoom).abs() + 0.02
    shift_x, shift_y = uniform(-1, 1) * room, uniform(-1, 1) * room
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = flip / (zoom * stretch), 1 / zoom
    theta[:, 0, 2], theta[:, 1, 2] = shift_x, shift_y
    field = functional.affine_grid(theta, [count, 3, HEIGHT, WIDTH], align_corners=False)
    pixels = functional.grid_sample(
        images.permute(0, 3, 1, 2).float(), field, padding_mode="border", align_corners=False
    )
    corners = boxes[..., 1:5] / torch.tensor([width, height, width, height], device=device) * 2 - 1
    offset = torch.stack([shift_x, shift_y, shift_x, shift_y], 1)[:, None]
    scale = torch.stack([theta[:, 0, 0], theta[:, 1, 1]] * 2, 1)[:, None]
    moved = ((corners - offset) / scale + 1) / 2 * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT], device=device)
    x = torch.sort(moved[..., [0, 2]], -1).values
    moved = torch.stack([x[..., 0], moved[..., 1], x[..., 1], moved[..., 3]], -1)
    clipped = torch.stack([moved[..., i].clamp(0, (WIDTH, HEIGHT)[i % 2]) for i in range(4)], -1)
    kept = (clipped[..., 2:] - clipped[..., :2]).clamp(min=0).prod(-1) / (moved[..., 2:] - moved[..., :2]).prod(
        -1
    ).clamp(min=1e-6)
    tall = clipped[..., 3] - clipped[..., 1]
    kind = torch.where((kept > 0.02) & (tall > 2), boxes[..., 0], -1.0)
    ignored = ((boxes[..., 5] > 0.5) | (kept < 0.15) | (tall < 3.2)).float()
    truth = torch.cat([kind[..., None], clipped, ignored[..., None]], -1)
    return _coloured(pixels, uniform, random), truth


def _coloured(pixels: Tensor, draw: Callable[..., Tensor], random: torch.Generator) -> Tensor:
    """Brightness, contrast, tint, greyness, blur or sharpening, noise."""
    gain = torch.exp(draw(-0.35, 0.35, 1, 1, 1)) * torch.exp(draw(-0.10, 0.10, 3, 1, 1))
    grey = pixels.mean(1, keepdim=True)
    pixels = grey + (pixels - grey) * draw(0.5, 1.5, 1, 1, 1)
    level = pixels.mean((1, 2, 3), keepdim=True)
    pixels = (level + (pixels - level) * draw(0.7, 1.3, 1, 1, 1)) * gain
    soft = functional.avg_pool2d(pixels, 3, 1, 1)
    pixels = pixels + (pixels - soft) * draw(-0.7, 0.9, 1, 1, 1)
    noise = torch.randn(pixels.shape, generator=random, device=pixels.device)
    pixels = pixels + noise * (draw(0, 7, 1, 1, 1) * (draw(0, 1, 1, 1, 1) < 0.6))
    return pixels.clamp(0, 255)


class Averaged:
    """Exponential moving average of a network's weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights of the model."""
        self.steps += 1
        share = self.decay * (1 - math.exp(-self.steps / 400))
        for mine, other in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.mul_(share).add_(other.detach(), alpha=1 - share)
            else:
                mine.copy_(other)


class Training:
    """A network, its optimiser and where it stands."""

    def __init__(self, args: argparse.Namespace, steps_an_epoch: int) -> None:
        torch.manual_seed(args.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = Detector().to(self.device)
        self.average = Averaged(self.model, 0.9995)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.99))
        total = max(1, args.epochs * steps_an_epoch)
        warm = min(600, total // 10 + 1)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda step: min(1.0, (step + 1) / warm) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1.0, step / total)))),
        )
        self.epoch = 0
        self.random = torch.Generator(device=self.device)

    def state(self) -> dict[str, object]:
        """What a checkpoint holds."""
        parts = ("model", "optimiser", "schedule")
        state = {name: getattr(self, name).state_dict() for name in parts}
        return {**state, "average": self.average.model.state_dict(), "steps": self.average.steps, "epoch": self.epoch}

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("model", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.average.model.load_state_dict(state["average"])
        self.average.steps, self.epoch = state["steps"], state["epoch"]

    def run_epoch(self, images: Tensor, boxes: Tensor, args: argparse.Namespace) -> float:
        """One pass over all frames; the mean loss."""
        self.random.manual_seed(args.seed * 1000 + self.epoch)
        order = torch.randperm(len(images), generator=self.random, device=self.device).to(images.device)
        cells, total, steps = grid(self.device), 0.0, 0
        gentle = self.epoch >= args.epochs * 0.8
        self.model.train()
        for start in range(0, len(order) - args.batch + 1, args.batch):
            pick = order[start : start + args.batch]
            pixels, truth = augmented(
                images[pick].to(self.device), boxes[pick].to(self.device), self.random, gentle=gentle
            )
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                rows = self.model(pixels.contiguous(memory_format=torch.channels_last))
            loss = loss_of(rows.float(), truth, cells)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
            self.optimiser.step()
            self.schedule.step()
            self.average.update(self.model)
            total, steps = total + float(loss.detach()), steps + 1
        self.epoch += 1
        return total / max(1, steps)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=9600, help="rendered training frames (24 a street)")
    parser.add_argument("--epochs", type=int, default=64)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first-street", type=int, default=0, help="where in the training seeds to start")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="stop after the epoch in which this is reached; run again to go on"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/sample_detector"), help="rendered frames and the checkpoint"
    )
    parser.add_argument("--out", type=Path, default=Path("data/samples/models/sample_detector.onnx"))
    return parser.parse_args()


def frames_on_disk(args: argparse.Namespace, began: float) -> list[Path]:
    """The frames' files, rendered where missing."""
    seeds = training_seeds(args.first_street, args.frames)
    for done, _ in enumerate(render_streets(args.work / "frames", seeds, processes=args.processes), 1):
        if done % max(1, len(seeds) // 20) == 0:
            say(f"rendered {done}/{len(seeds)} streets, {time.monotonic() - began:.0f} s")
    return [street_file(args.work / "frames", seed) for seed in seeds]


def main() -> None:
    """Render, train, write."""
    args, began = arguments(), time.monotonic()
    torch.backends.cudnn.benchmark = True
    images, boxes = (torch.from_numpy(a) for a in load(frames_on_disk(args, began)))
    steps = len(images) // args.batch
    training = Training(args, steps)
    training.model.to(memory_format=torch.channels_last)
    if training.device.type == "cuda":
        images, boxes = images.to(training.device), boxes.to(training.device)
    say(f"{len(images)} frames, {sum(p.numel() for p in training.model.parameters())} parameters, {training.device}")
    checkpoint = args.work / "checkpoint.pt"
    if checkpoint.exists():
        training.restore(checkpoint)
        say(f"going on after epoch {training.epoch}")
    while training.epoch < args.epochs and time.monotonic() - began < args.minutes * 60:
        loss = training.run_epoch(images, boxes, args)
        partial = checkpoint.with_suffix(".part")
        torch.save(training.state(), partial)
        partial.replace(checkpoint)
        say(f"epoch {training.epoch}/{args.epochs}: loss {loss:.3f}, {time.monotonic() - began:.0f} s")
    write_whole(args.out, write_onnx(training.average.model.cpu().float()))
    say(f"wrote {args.out}: {args.out.stat().st_size} bytes after epoch {training.epoch}/{args.epochs}")


if __name__ == "__main__":
    main()
