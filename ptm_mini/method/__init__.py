"""The paper, in reading order: layers, backbone, prompts, damage, router, baselines. torch and numpy alone."""
