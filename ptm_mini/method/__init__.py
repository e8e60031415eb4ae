"""The paper, in reading order: backbone, prompts, damage, router, baselines."""
