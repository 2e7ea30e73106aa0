"""Variant S: the 11-block ResNet of a student study, with ImageNet's stem and each stride on a block's first 1x1 convolution.

Its layers are those of resnet_reference; the names of its state are the study's.
"""

import torch.nn as nn

import resnet_reference as resnet

DEFAULTS = {"attention": "none", "classes": 10, "width": 64}
BLOCKS = (3, 3, 3, 2)
# The study's names and those of resnet_reference, as parts of a key.
NAMES = [
    ("conv_block1.0.", "conv1."),
    ("conv_block1.1.", "bn1."),
    ("linear.", "fc."),
    ("identity_connection.", "downsample."),
    ("channel_attention.shared_mlp.", "ChannelGate.mlp."),
    ("spatial_attention.spatial_attention.0.", "SpatialGate.spatial.conv."),
    ("spatial_attention.spatial_attention.1.", "SpatialGate.spatial.bn."),
]


def theirs(key):
    """A name of resnet_reference -> the study's"""
    if not key.startswith("layer"):
        return next((study + key[len(own) :] for study, own in NAMES[:3] if key.startswith(own)), key)
    for study, own in NAMES[3:]:
        key = key.replace(own, study)
    return key


def ours(key):
    """The study's name -> that of resnet_reference"""
    for study, own in NAMES:
        key = key.replace(study, own)
    return key


class Study(resnet.ResNet):
    """x [N,3,H,W] -> logits [N,classes]"""

    def __init__(self, attention="none", classes=10, width=64):
        nn.Module.__init__(self)
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        c_in = width
        for level, count in enumerate(BLOCKS):
            blocks, planes = [], width << level
            for i in range(count):
                stride = 2 if level > 0 and i == 0 else 1
                block = resnet.Bottleneck(c_in, planes, stride, attention == "cbam", 16)
                block.conv1.stride, block.conv2.stride = (stride, stride), (1, 1)
                blocks.append(block)
                c_in = 4 * planes
            setattr(self, f"layer{level + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c_in, classes)

    def state_dict(self, *args, **kwargs):
        return {theirs(k): t for k, t in super().state_dict(*args, **kwargs).items()}

    def load_state_dict(self, state, strict=True):
        return super().load_state_dict({ours(k): t for k, t in state.items()}, strict)


def build(config):
    """Variant S in eval mode, parameters frozen, from a `config` object."""
    unknown = set(config) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown config keys {sorted(unknown)}; known: {sorted(DEFAULTS)}")
    return Study(**{**DEFAULTS, **config}).eval().requires_grad_(False)
