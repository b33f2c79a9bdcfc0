"""Networks for 32x32 colour images; each maps `(N, 3, 32, 32)` to logits `(N, num_classes)`.

Convolutions of the report's networks keep the module names of its published weight files, so those files can be loaded.
"""

from cifar_lab.models.cnn import CNN
from cifar_lab.models.libraries import Timm, Torchvision
from cifar_lab.models.resnet import ResNet
from cifar_lab.models.speed_cnn import SpeedCNN
from cifar_lab.models.vgg import VGG

__all__ = ["CNN", "VGG", "ResNet", "SpeedCNN", "Timm", "Torchvision"]
