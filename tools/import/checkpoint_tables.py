"""Names and shapes of every tensor of the networks, and the published checkpoints. Standard library only."""

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CIFAR_MEAN, CIFAR_STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
HALF = [0.5, 0.5, 0.5]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Table(dict):
    """name -> shape, filled in the order of the state_dict."""

    def both(self, name, shape, bias=None):
        """`name.weight` and `name.bias`, the bias as long as the first axis."""
        self[f"{name}.weight"] = tuple(shape)
        self[f"{name}.bias"] = (bias or shape[0],)

    def batch_norm(self, name, c):
        for part in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.{part}"] = (c,)
        self[f"{name}.num_batches_tracked"] = ()

    def res_block(self, name, c_in, c_emb, c_out):
        self.both(f"{name}.in_layers.0", (c_in,))
        self.both(f"{name}.in_layers.2", (c_out, c_in, 3, 3))
        self.both(f"{name}.emb_layers.1", (2 * c_out, c_emb))
        self.both(f"{name}.out_layers.0", (c_out,))
        self.both(f"{name}.out_layers.3", (c_out, c_out, 3, 3))
        if c_in != c_out:
            self.both(f"{name}.skip_connection", (c_out, c_in, 1, 1))

    def attention(self, name, c):
        self.both(f"{name}.norm", (c,))
        self.both(f"{name}.qkv", (3 * c, c, 1))
        self.both(f"{name}.proj_out", (c, c, 1))


def unet(config):
    """improved-diffusion and guided-diffusion; the number of heads leaves no trace in the shapes."""
    base, mults, depth = config["channels"], config["channel_mult"], config["res_blocks"]
    table, c_emb, factor = Table(), 4 * base, 1
    table.both("time_embed.0", (c_emb, base))
    table.both("time_embed.2", (c_emb, c_emb))
    c, index = mults[0] * base, 1
    table.both("input_blocks.0.0", (c, 3, 3, 3))
    skips = [c]
    for level, mult in enumerate(mults):
        for _ in range(depth):
            table.res_block(f"input_blocks.{index}.0", c, c_emb, mult * base)
            c = mult * base
            if factor in config["attention_factors"]:
                table.attention(f"input_blocks.{index}.1", c)
            skips.append(c)
            index += 1
        if level < len(mults) - 1:
            if config["resblock_updown"]:
                table.res_block(f"input_blocks.{index}.0", c, c_emb, c)
            else:
                table.both(f"input_blocks.{index}.0.op", (c, c, 3, 3))
            skips.append(c)
            index, factor = index + 1, 2 * factor
    table.res_block("middle_block.0", c, c_emb, c)
    table.attention("middle_block.1", c)
    table.res_block("middle_block.2", c, c_emb, c)
    index = 0
    for level, mult in reversed(list(enumerate(mults))):
        for last in [False] * depth + [True]:
            table.res_block(f"output_blocks.{index}.0", c + skips.pop(), c_emb, mult * base)
            c, place = mult * base, 1
            if factor in config["attention_factors"]:
                table.attention(f"output_blocks.{index}.1", c)
                place = 2
            if last and level > 0:
                if config["resblock_updown"]:
                    table.res_block(f"output_blocks.{index}.{place}", c, c_emb, c)
                else:
                    table.both(f"output_blocks.{index}.{place}.conv", (c, c, 3, 3))
                factor //= 2
            index += 1
    table.both("out.0", (c,))
    table.both("out.2", (config["out_channels"], c, 3, 3))
    return table


def resnet(config):
    """torchvision and, with CBAM, attention-module."""
    table, width = Table(), config["width"]
    table["conv1.weight"] = (width, 3, 3, 3) if config["stem"] == "cifar" else (width, 3, 7, 7)
    table.batch_norm("bn1", width)
    c_in, bottleneck = width, config["depth"] == 50
    for level, count in enumerate(BLOCKS[config["depth"]]):
        planes = width << level
        c_out = 4 * planes if bottleneck else planes
        for block in range(count):
            name, stride = f"layer{level + 1}.{block}", 2 if level and not block else 1
            shapes = (
                [(planes, c_in, 1, 1), (planes, planes, 3, 3), (c_out, planes, 1, 1)]
                if bottleneck
                else [(planes, c_in, 3, 3), (planes, planes, 3, 3)]
            )
            for i, shape in enumerate(shapes, 1):
                table[f"{name}.conv{i}.weight"] = shape
                table.batch_norm(f"{name}.bn{i}", shape[0])
            if stride == 2 or c_in != c_out:
                table[f"{name}.downsample.0.weight"] = (c_out, c_in, 1, 1)
                table.batch_norm(f"{name}.downsample.1", c_out)
            if config["attention"] == "cbam":
                hidden = max(1, c_out // config["reduction"])
                table.both(f"{name}.cbam.ChannelGate.mlp.1", (hidden, c_out))
                table.both(f"{name}.cbam.ChannelGate.mlp.3", (c_out, hidden))
                table[f"{name}.cbam.SpatialGate.spatial.conv.weight"] = (1, 2, 7, 7)
                table.batch_norm(f"{name}.cbam.SpatialGate.spatial.bn", 1)
            c_in = c_out
    table.both("fc", (config["classes"], c_in))
    return table


def coatnet(config):
    """timm's coatnet_rmlp_*_rw: MBConv ("C") and transformer ("T") stages."""
    table, (stem, c_in) = Table(), config["stem"]
    table["stem.conv1.weight"] = (stem, 3, 3, 3)
    table.batch_norm("stem.norm1", stem)
    table["stem.conv2.weight"] = (c_in, stem, 3, 3)
    for stage, (kind, c, depth) in enumerate(zip(config["types"], config["dims"], config["depths"])):
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            (mbconv if kind == "C" else transformer)(table, name, c_in, c, block == 0, config)
            c_in = c
    table.both("norm", (c_in,))
    table.both("head.fc", (config["classes"], c_in))
    return table


def mbconv(table, name, c_in, c_out, first, config):
    middle = 4 * c_in
    if c_in != c_out:
        table[f"{name}.shortcut.expand.weight"] = (c_out, c_in, 1, 1)
    table.batch_norm(f"{name}.pre_norm", c_in)
    table[f"{name}.conv1_1x1.weight"] = (middle, c_in, 1, 1)
    table.batch_norm(f"{name}.norm1", middle)
    table[f"{name}.conv2_kxk.weight"] = (middle, 1, 3, 3)
    table.batch_norm(f"{name}.norm2", middle)
    table.both(f"{name}.se.fc1", (middle // 4, middle, 1, 1))
    table.both(f"{name}.se.fc2", (middle, middle // 4, 1, 1))
    table[f"{name}.conv3_1x1.weight"] = (c_out, middle, 1, 1)


def transformer(table, name, c_in, c_out, first, config):
    hidden = config["rel_pos_hidden"]
    if first:
        table.both(f"{name}.shortcut.expand", (c_out, c_in, 1, 1))
    table.both(f"{name}.norm1.norm" if first else f"{name}.norm1", (c_in,))
    table.both(f"{name}.attn.qkv", (3 * c_in, c_in, 1, 1))
    table.both(f"{name}.attn.rel_pos.mlp.fc1", (hidden, 2))
    table.both(f"{name}.attn.rel_pos.mlp.fc2", (c_in // config["head_dim"], hidden))
    table.both(f"{name}.attn.proj", (c_out, c_in, 1, 1))
    table[f"{name}.ls1.gamma"] = (c_out,)
    table.both(f"{name}.norm2", (c_out,))
    table.both(f"{name}.mlp.fc1", (4 * c_out, c_out, 1, 1))
    table.both(f"{name}.mlp.fc2", (c_out, 4 * c_out, 1, 1))
    table[f"{name}.ls2.gamma"] = (c_out,)


TABLES = {"unet": unet, "resnet": resnet, "coatnet": coatnet}


def resnet_model(depth, stem, attention, dataset):
    classes, mean, std = (1000, IMAGENET_MEAN, IMAGENET_STD) if stem == "imagenet" else (10, CIFAR_MEAN, CIFAR_STD)
    config = {"depth": depth, "stem": stem, "width": 64, "attention": attention, "reduction": 16, "classes": classes}
    return {"arch": "resnet", "config": config, "mean": mean, "std": std, "dataset": dataset}


# What the metadata of a checkpoint says beside its tensors. `schedule`, `steps` and `tau_scale` (timestep to embedding) belong
# to denoisers, `mean` and `std` to classifiers.
MODELS = {
    "improved-diffusion-cifar10": {
        "arch": "unet",
        "schedule": "cosine",
        "steps": 4000,
        "tau_scale": 0.25,
        "dataset": "cifar10",
        "config": {
            "channels": 128,
            "channel_mult": [1, 2, 2, 2],
            "res_blocks": 3,
            "attention_factors": [2, 4],
            "heads": 4,
            "resblock_updown": False,
            "out_channels": 6,
        },
    },
    "guided-diffusion-imagenet256": {
        "arch": "unet",
        "schedule": "linear",
        "steps": 1000,
        "tau_scale": 1,
        "dataset": "imagenet",
        "config": {
            "channels": 256,
            "channel_mult": [1, 1, 2, 2, 4, 4],
            "res_blocks": 2,
            "attention_factors": [8, 16, 32],
            "head_channels": 64,
            "resblock_updown": True,
            "out_channels": 6,
        },
    },
    **{
        f"resnet{depth}{'-cbam' if attention == 'cbam' else ''}-{dataset}": resnet_model(depth, stem, attention, dataset)
        for depth in BLOCKS
        for attention in ("none", "cbam")
        for stem, dataset in (("imagenet", "imagenet"), ("cifar", "cifar10"))
    },
    "coatnet-rmlp-2-rw-384": {
        "arch": "coatnet",
        "mean": HALF,
        "std": HALF,
        "dataset": "imagenet",
        "config": {
            "stem": [64, 128],
            "dims": [128, 256, 512, 1024],
            "depths": [2, 6, 14, 2],
            "types": "CCTT",
            "head_dim": 32,
            "rel_pos_hidden": 512,
            "image": 384,
            "classes": 1000,
        },
    },
}
