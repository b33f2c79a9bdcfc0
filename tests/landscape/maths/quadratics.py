"""A quadratic loss of three weights in two tensors, whose Hessian is a matrix."""

import torch

MATRIX = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, -1.0], [0.0, -1.0, 5.0]], dtype=torch.float64)
POINT = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def by_name(point):
    return {"a": point[:2].clone(), "b": point[2:].clone()}


def quadratic(weights):
    point = torch.cat([weights["a"], weights["b"]])
    return point @ MATRIX @ point / 2
