"""Networks as PyTorch modules: trained weights from files, or generated ones for the shapes of a published network.

Every function returns a module in evaluation mode that takes a batch [N, C, H, W]. Weights of a pair "conv, batch norm"
stay apart: folding them is the compiler's work.

Source: the papers named at each function; weights are those of the files that ``registry.py`` names.
"""
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

#: Convolutions of each block of VGG-19, and their channels.
VGG19 = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
#: Channels of the Inception modules of GoogLeNet: 1x1; 3x3 and what it reads; 5x5 and what it reads; behind the pool.
GOOGLENET = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
     (256, 160, 320, 32, 128, 128)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
#: Stages of EfficientNet-lite0: blocks, kernel, stride of the first block.
EFFICIENTNET = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))


class Function(nn.Module):
    """A module of one function of the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x):
        """The function's value for a batch ``x``."""
        return self.function(x)


def _tensors(path):
    return {name: torch.from_numpy(values) for name, values in np.load(path).items()}


def _same(x, weights, stride):
    """``x`` padded so that ``ceil(size / stride)`` outputs come out; an odd row or column goes to the end."""
    pads = []
    for size, kernel in zip(map(int, x.shape[:1:-1]), weights.shape[:1:-1], strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def digit_recogniser(path) -> nn.Module:
    """Three convolutions with pools, two fully connected layers: ``compiler.networks.digits`` as a module."""
    state = torch.load(path, weights_only=True)

    def forward(x):
        for key in (0, 3, 6):
            x = F.relu(F.conv2d(x, state[f"conv_layers.{key}.weight"], state[f"conv_layers.{key}.bias"], padding=1))
            x = F.max_pool2d(x, 2)
        x = F.relu(F.linear(x.flatten(1), state["fc_layers.0.weight"], state["fc_layers.0.bias"]))
        return F.linear(x, state["fc_layers.2.weight"], state["fc_layers.2.bias"])

    return Function(forward)


def resnet_cifar(path, blocks: int) -> nn.Module:
    """ResNet for CIFAR-10 with ``blocks`` blocks in each of three stages: K. He et al., CVPR 2016, section 4.2.

    Shortcuts have no weights: every second pixel, and channels of zeros on both sides.
    """
    state = _tensors(path)

    def conv_norm(x, conv, norm, stride):
        y = F.conv2d(x, state[f"{conv}.weight"], None, stride, 1)
        return F.batch_norm(y, *(state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")))

    def forward(x):
        x = F.relu(conv_norm(x, "conv1", "bn1", 1))
        for stage in (1, 2, 3):
            for block in range(blocks):
                name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                y = F.relu(conv_norm(x, f"{name}.conv1", f"{name}.bn1", stride))
                y = conv_norm(y, f"{name}.conv2", f"{name}.bn2", 1)
                if stride == 2:
                    extra = (y.shape[1] - x.shape[1]) // 2
                    x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, extra, extra))
                x = F.relu(x + y)
        return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])

    return Function(forward)


def resnet8(path) -> nn.Module:
    """ResNet-8 of MLPerf Tiny (C. Banbury et al., NeurIPS 2021): kernels (row, column, in, out), "same" padding."""
    state = _tensors(path)

    def key(kind, number):
        return f"{kind}_{number}" if number else kind

    def conv(x, number, stride=1):
        name = key("conv2d", number)
        weights = state[f"{name}/kernel"].permute(3, 2, 0, 1).contiguous()
        return F.conv2d(_same(x, weights, stride), weights, state[f"{name}/bias"], stride)

    def norm(x, number):
        name = key("batch_normalization", number)
        mean, variance, gamma, beta = (state[f"{name}/{part}"]
                                       for part in ("moving_mean", "moving_variance", "gamma", "beta"))
        return F.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)

    def forward(x):
        x = F.relu(norm(conv(x, 0), 0))
        first_conv, first_norm = 1, 1
        for stride in (1, 2, 2):
            y = F.relu(norm(conv(x, first_conv, stride), first_norm))
            y = norm(conv(y, first_conv + 1), first_norm + 1)
            # The shortcut's convolution comes behind the two of its block.
            x = F.relu(y + (x if stride == 1 else conv(x, first_conv + 2, stride)))
            first_conv, first_norm = first_conv + (2 if stride == 1 else 3), first_norm + 2
        return F.linear(x.mean((2, 3)), state["dense/kernel"].T.contiguous(), state["dense/bias"])

    return Function(forward)


def squeezenet(path) -> nn.Module:
    """SqueezeNet v1.0: F. Iandola et al., arXiv 1602.07360, table 1; ``conv10`` is padded by 1 as in the Caffe file."""
    state = _tensors(path)

    def conv(x, name, stride=1, pad=0):
        return F.relu(F.conv2d(x, state[f"{name}/w"], state[f"{name}/b"], stride, pad))

    def forward(x):
        x = F.max_pool2d(conv(x, "conv1", 2), 3, 2, ceil_mode=True)
        for number in range(2, 10):
            squeezed = conv(x, f"fire{number}/squeeze1x1")
            x = torch.cat([conv(squeezed, f"fire{number}/expand1x1"),
                           conv(squeezed, f"fire{number}/expand3x3", pad=1)], 1)
            if number in (4, 8):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return conv(x, "conv10", pad=1).mean((2, 3))

    return Function(forward)


def roshambonet(path) -> nn.Module:
    """RoshamboNet (A. Aimar et al., "NullHop", TNNLS 2019): 16-bit integers of the file as numbers, average pools."""
    file = np.load(path)
    kernels = [torch.from_numpy(file[f"layer{n}/kernel"] / 2.0 ** file["shift_kernel"][n - 1]).float()
               for n in range(1, 7)]
    biases = [torch.from_numpy(file[f"layer{n}/bias"] / 2.0 ** file["shift_bias"][n - 1]).float() for n in range(1, 7)]
    convolutions = [kernel.permute(3, 2, 0, 1).contiguous() for kernel in kernels[:5]]

    def forward(x):
        for weights, bias in zip(convolutions, biases, strict=False):
            x = F.avg_pool2d(F.relu(F.conv2d(x, weights, bias)), 2)
        return F.linear(x.flatten(1), kernels[5].T.contiguous(), biases[5])

    return Function(forward)


def efficientnet_lite0(path) -> nn.Module:
    """EfficientNet-lite0: M. Tan, Q. Le, ICML 2019, without squeeze-and-excite, with ReLU6; "same" padding."""
    state = torch.load(path, weights_only=True)

    def conv_norm(x, conv, norm, stride=1):
        weights = state[f"{conv}.weight"]
        x = F.conv2d(_same(x, weights, stride), weights, None, stride, groups=x.shape[1] // weights.shape[1])
        return F.batch_norm(x, *(state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")),
                            eps=1e-3)

    def forward(x):
        x, number = F.relu6(conv_norm(x, "_conv_stem", "_bn0", 2)), 0
        for blocks, _, stride in EFFICIENTNET:
            for block in range(blocks):
                name, y = f"_blocks.{number}", x
                if f"{name}._expand_conv.weight" in state:
                    y = F.relu6(conv_norm(y, f"{name}._expand_conv", f"{name}._bn0"))
                y = F.relu6(conv_norm(y, f"{name}._depthwise_conv", f"{name}._bn1", 1 if block else stride))
                y = conv_norm(y, f"{name}._project_conv", f"{name}._bn2")
                x, number = x + y if block else y, number + 1
        x = F.relu6(conv_norm(x, "_conv_head", "_bn1"))
        return F.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])

    return Function(forward)


def _generated(generator, channels, out_channels, kernel, **options):
    """A convolution with a ReLU; weights from a normal distribution that keeps the size of the values."""
    conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, **options)
    with torch.no_grad():
        conv.weight.normal_(0, (2 / (channels * kernel * kernel)) ** .5, generator=generator)
        conv.bias.zero_()
    return nn.Sequential(conv, nn.ReLU())


def vgg19(seed: int) -> nn.Module:
    """The 16 convolutions of VGG-19 (K. Simonyan, A. Zisserman, ICLR 2015) with weights generated from ``seed``."""
    generator, layers, channels = torch.Generator().manual_seed(seed), [], 3
    for count, out_channels in VGG19:
        for _ in range(count):
            layers.append(_generated(generator, channels, out_channels, 3))
            channels = out_channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).eval()


class Inception(nn.Module):
    """An Inception module: four paths side by side; ``sizes`` as in :data:`GOOGLENET`."""

    def __init__(self, generator, channels, sizes):
        super().__init__()
        one, before_three, three, before_five, five, pooled = sizes
        self.paths = nn.ModuleList([
            _generated(generator, channels, one, 1),
            nn.Sequential(_generated(generator, channels, before_three, 1),
                          _generated(generator, before_three, three, 3)),
            nn.Sequential(_generated(generator, channels, before_five, 1), _generated(generator, before_five, five, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), _generated(generator, channels, pooled, 1)),
        ])
        self.channels = one + three + five + pooled

    def forward(self, x):
        """The four paths, one after the other."""
        return torch.cat([path(x) for path in self.paths], 1)


def googlenet(seed: int) -> nn.Module:
    """The convolutions and pools of GoogLeNet (C. Szegedy et al., CVPR 2015), its mean and classifier; no
    normalisation across channels; weights generated from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    layers = [_generated(generator, 3, 64, 7, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True),
              _generated(generator, 64, 64, 1), _generated(generator, 64, 192, 3)]
    channels = 192
    for stage in GOOGLENET:
        layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        for sizes in stage:
            layers.append(Inception(generator, channels, sizes))
            channels = layers[-1].channels
    classifier = nn.Linear(channels, 1000)
    with torch.no_grad():
        classifier.weight.normal_(0, channels ** -.5, generator=generator)
        classifier.bias.zero_()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier).eval()
